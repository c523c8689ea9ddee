"""Networks of the user: `module:factory` names a callable in an importable module."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier, foreign_code, split_classifier
from dream_ray.nets.options import GIVEN_TO_EVERY_FACTORY, check_options


def user_network(
    name: str, *, num_classes: int, shape_CHW: tuple[int, int, int], options: Mapping[str, Any]
) -> Classifier:
    """Build the user's network and split it into a `Classifier`.

    Args:
        name: `module:factory`. The factory is called with `num_classes`, `shape_CHW` and the options as keywords and
            returns an `nn.Module` (float32, CPU) that maps images_NCHW to logits_NK and ends in an `nn.Linear`.
        num_classes: K, number of logits.
        shape_CHW: shape of one image.
        options: further keywords of the factory.

    Raises:
        UsageError: the module or the factory cannot be found, fails, or returns something else.
    """
    factory = _import_factory(name)
    _check_parameters(name, factory)
    check_options(name, factory, options)
    with foreign_code(f"network {name!r}"):
        network = factory(num_classes=num_classes, shape_CHW=shape_CHW, **options)
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {name!r} must return a torch.nn.Module; got {type(network).__name__}")
    return split_classifier(network, num_classes=num_classes, shape_CHW=shape_CHW, name=f"network {name!r}")


def source_digest(name: str) -> str | None:
    """Return a digest of the module that defines a user's network; None for other networks.

    Raises:
        UsageError: the module cannot be imported, or has no source.
    """
    source, colon, _ = name.partition(":")
    if not colon or source in ("torchvision", "timm"):
        return None
    _import_factory(name)
    with foreign_code(f"network {name!r}: the source of {source}"):
        return hashlib.sha256(inspect.getsource(sys.modules[source]).encode()).hexdigest()[:16]


def _check_parameters(name: str, factory: Callable[..., object]) -> None:
    """Check that a factory was written for this purpose: a set of other people may name any callable, with options.

    Raises:
        UsageError: it lacks one of the two parameters that every factory is called with.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        raise UsageError(f"network {name!r} must be a Python callable whose signature can be read") from error
    missing = [parameter for parameter in GIVEN_TO_EVERY_FACTORY if parameter not in parameters]
    if missing:
        raise UsageError(
            f"network {name!r} must have the parameters {' and '.join(GIVEN_TO_EVERY_FACTORY)}; it lacks "
            f"{' and '.join(missing)}"
        )


def _import_factory(name: str) -> Callable[..., object]:
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise UsageError(f"a user's network must have the form module:factory; got {name!r}")
    with foreign_code(f"network {name!r} (its module must be on Python's search path): import of {module_name}"):
        module = importlib.import_module(module_name)  # noqa: TID251 - the user names it
    factory: object = getattr(module, attribute, None)
    if not callable(factory):
        got = "no such name" if factory is None else type(factory).__name__
        raise UsageError(f"network {name!r} must name a callable in {module_name}; got {got}")
    return factory
