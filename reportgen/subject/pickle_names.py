"""Names of classes and functions that a pickle may give: what weights need, and what frameworks write beside them.

A checkpoint of a framework holds hyper-parameters, metrics, callbacks and whole objects of classes that nobody here
has. Nothing of it is imported or called (see `reportgen.subject.safe_pickle`): an inert stand-in takes its place, and
what was stood in for is told. Names of Python's own library are another matter. What they do is known, and nearly all
of them have no business in a model file: they stay refused, so that a file made to do harm is called one.
"""

from __future__ import annotations

import sys

PACKAGES = (
    "torch.nn.",
    "torch.optim.",
    "torchvision.models.",
    "torchvision.ops.",
    "torchvision.transforms.",
    "timm.models.",
    "timm.layers.",
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "omegaconf.",
    "pathlib.",
    "datetime.",
)
"""Whole packages whose names weights, modules and the settings stored beside them use."""

_SCALARS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_RARE = (
    "uint16",
    "uint32",
    "uint64",
    "complex32",
    "qint8",
    "quint8",
    "qint32",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e5m2",
)
_STORED = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped")
_PLAIN = ("object", "list", "dict", "tuple", "bool", "int", "float", "str", "bytes", "bytearray", "complex", "slice")
_NAMES = frozenset(
    (
        *("argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "functools.partial", "uuid.UUID"),
        *("collections.defaultdict", "collections.Counter", "collections.deque"),
        *("_codecs.encode", "copyreg._reconstructor", "copy_reg._reconstructor"),
        *("numpy.dtype", "numpy.ndarray", "numpy.bool_", *(f"numpy.{kind}" for kind in _SCALARS)),
        *("torch.device", "torch.Tensor", "torch.torch_version.TorchVersion"),
        *("torch._C._nn.gelu", "torch.relu", "torch.sigmoid", "torch.tanh", "torch.flatten"),
        *(f"torch.{kind}" for kind in (*_SCALARS, *_RARE)),
        *(f"torch.{kind}Storage" for kind in (*_STORED, "ComplexFloat", "ComplexDouble", "QInt8", "QUInt8", "QInt32")),
        *("torch.serialization._get_layout", "torch.per_tensor_affine", "torch.per_channel_affine"),
        *("torch.storage.UntypedStorage", "torch.storage.TypedStorage"),
        *(f"{module}.{kind}" for module in ("__builtin__", "builtins") for kind in (*_PLAIN, "range", "type")),
        *("__builtin__.unicode", "__builtin__.long"),
    )
)


def is_needed(path: str) -> bool:
    """Whether a name is one that weights, modules and the settings stored beside them use.

    Args:
        path: dotted, as the file gives it.
    """
    return path in _NAMES or path.startswith(PACKAGES)


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
