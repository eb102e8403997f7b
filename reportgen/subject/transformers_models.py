"""Image classifiers of transformers: built from the ``config.json`` beside their weights, and from nothing else.

No code of the directory is run, and nothing is fetched: the class is looked up among those of the installed library.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from reportgen.errors import ArchitectureError, ModelFileError
from reportgen.subject.fitting import Misfit
from reportgen.subject.hub import Settings
from reportgen.subject.labels import named_classes
from reportgen.text import line, words_of

_CLASSIFIES = "ForImageClassification"
_TABLES = ("id2label", "label2id")
_MOST_DEPTH = 1000
_MOST_NUMBER = 2**24
_REMOTE = ("adapter", "auto_map", "backbone", "fusion", "implementation", "kernel", "peft", "pipeline", "quantization")
"""Words in the names of entries by which a configuration could ask for code or weights from elsewhere."""


def check_is_classifier(settings: Settings, shown: str) -> None:
    """Raises ModelFileError where the configuration is that of a model for something else, a text for instance."""
    classes = settings.classes
    if classes and not any(_CLASSIFIES in name for name in classes):
        raise ModelFileError(
            f"{shown!r} is a {line(classes[0], 80)} of transformers, not an image classifier",
            "give a model whose config.json names a …ForImageClassification",
        )


def build(settings: Settings, state: Mapping[str, Tensor], shown: str) -> tuple[nn.Module, str, tuple[str, ...]]:
    """(the module with its weights, name of its class, keys that it does not have).

    Args:
        state: names to tensors, as the file has them; older names of a part are known to the library.

    Raises:
        ModelFileError: if it is no image classifier.
        ArchitectureError: if transformers is not installed, does not know it, or the weights do not fit.
    """
    kind = str(settings.config["model_type"])
    cls, config = _class_and_config(settings, kind, shown)
    name = f"transformers:{cls.__name__}"
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library about itself
            module, told = cls.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except Exception as error:  # whatever a configuration makes the library raise
        raise ArchitectureError(
            f"{name} cannot be built for {shown!r}: {words_of(error)}", "check config.json"
        ) from error
    reshaped = {str(key): (tuple(there), tuple(wanted)) for key, there, wanted in told["mismatched_keys"]}
    stray = sorted(map(str, told["unexpected_keys"]))
    misfit = Misfit(tuple(sorted(map(str, told["missing_keys"]))), reshaped, tuple(stray))
    misfit.check(shown, name, "give the config.json that was saved with these weights")
    made: nn.Module = module
    return made.float().eval(), name, tuple(stray)


def _class_and_config(settings: Settings, kind: str, shown: str) -> tuple[Any, Any]:
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    except ImportError:
        raise ArchitectureError(
            f"{shown!r} is a model of transformers, which is not installed", "pip install 'reportgen[hf]'"
        ) from None
    table = _of_its_own(settings.config)
    _check_numbers(table, shown)
    try:
        with quiet():
            config = CONFIG_MAPPING[kind].from_dict(table)
            found = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    except KeyError:
        raise ModelFileError(
            f"{shown!r} is a {line(kind, 40)!r} of transformers, which has no image classifier of that kind",
            "give an image classifier, or pip install -U transformers",
        ) from None
    except Exception as error:
        raise ArchitectureError(f"config.json of {shown!r} is damaged: {words_of(error)}", "get it again") from error
    several = found if isinstance(found, tuple) else (found,)
    return next((cls for cls in several if cls.__name__ in settings.classes), several[0]), config


def _of_its_own(table: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what is not meant for files, or could ask for something from elsewhere."""
    return {
        key: _of_its_own(value) if isinstance(value, Mapping) and key not in _TABLES else value
        for key, value in table.items()
        if not key.startswith("_") and not any(word in key for word in _REMOTE)
    }


def _check_numbers(table: Mapping[str, Any], shown: str) -> None:
    """Raises ArchitectureError for sizes that no network has, before it is built."""
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in _TABLES:
            _check_numbers(value, shown)
            continue
        most = _MOST_DEPTH if "layers" in key or key in ("depths", "num_encoder_blocks") else _MOST_NUMBER
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(one, int) and not isinstance(one, bool) and abs(one) > most for one in numbers):
            raise ArchitectureError(f"config.json of {shown!r} has an impossible {line(key, 40)}", "get it again")


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no reports of the library meanwhile: what does not fit is told in our own words."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names of ``id2label``; None where they are missing, have gaps, or are the library's own numbers."""
    names = named_classes(config.get("id2label"))
    return None if names == tuple(f"LABEL_{number}" for number in range(len(names or ()))) else names
