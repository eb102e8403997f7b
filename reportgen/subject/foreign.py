"""Names that weights do not need and that training frameworks write beside them all the same.

A checkpoint of a framework holds hyper-parameters, metrics, callbacks and whole objects of classes that nobody here
has. Nothing of it is imported or called (see `reportgen.subject.safe_pickle`): an inert stand-in takes its place, and
what was stood in for is told. Names of Python's own library are another matter. What they do is known, and nearly all
of them have no business in a model file: they stay refused, so that a file made to do harm is called one.
"""

from __future__ import annotations

import sys

_PYTHON_2 = ("__builtin__", "commands", "copy_reg", "popen2", "cPickle", "urllib2", "StringIO", "exceptions")
_OF_INSTALLERS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel", "_pytest", "pytest")
_KNOWN = ("torch", "torchvision", "timm", "numpy")
_NEVER = frozenset((*sys.stdlib_module_names, *_PYTHON_2, *_OF_INSTALLERS, *_KNOWN))

_HARMLESS_PACKAGES = (
    "inspect.",
    "typing.",
    "torch.utils.data.",
    "torch.amp.",
    "torch.cuda.amp.",
    "torch.distributed.",
    "torch.distributions.",
    "numpy.random._pickle.",
    "numpy.random._mt19937.",
    "numpy.random._pcg64.",
    "numpy.random.mtrand.",
    "torchvision.datasets.",
    "torchvision.io.",
    "torchvision.tv_tensors.",
)
"""Settings, data sets, scalers and random states; stood in for like everything else."""
_HARMLESS = frozenset(
    (
        *("_operator.or_", "operator.or_", "random.Random", "functools.reduce", "collections.abc.Callable"),
        *("re._compile", "re.compile", "logging.Logger", "logging.getLogger", "fractions.Fraction", "string.Template"),
        *(
            f"{module}.{name}"
            for module in ("__builtin__", "builtins")
            for name in ("print", "reduce", "len", "object")
        ),
        *(
            "torch.Generator",
            "torch._C.Generator",
            "torch.no_grad",
            "numpy.random.RandomState",
            "numpy.random.Generator",
        ),
        *("typing.Any", "torch.autograd.grad_mode.no_grad", "enum.Enum", "numpy.str_", "numpy.random.PCG64"),
    )
)


def is_foreign(path: str) -> bool:
    """Whether a name is that of a class or function nobody here has, which a stand-in may take the place of.

    Args:
        path: dotted, as the file gives it.
    """
    if path in _HARMLESS or path.startswith(_HARMLESS_PACKAGES):
        return True
    return path.partition(".")[0] not in _NEVER
