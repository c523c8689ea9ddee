"""The base of all sections of settings."""

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator


def takes_numbers_only(annotation: Any) -> bool:
    """Tells whether a type is made of numbers, and takes neither truth values nor anything else that may be one."""
    parts = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    if parts:
        return any(map(takes_numbers_only, parts)) and not any(map(_takes_truth, parts))
    return annotation in (int, float)


def _takes_truth(annotation: Any) -> bool:
    return annotation is bool or annotation is Any or any(map(_takes_truth, get_args(annotation)))


class Section(BaseModel):
    """A part of the configuration: immutable, keyword-only, no unknown keys.

    Attributes:
        later: Settings that are written only if they differ from their default. Digests of settings name checkpoints
            and trials, so those of settings from before these existed stay as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        unused = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in values.items() if name not in unused}

    @model_validator(mode="before")
    @classmethod
    def _check_truth_values(cls, values: Any) -> Any:
        """Refuses truth values for numbers: pydantic takes `yes` for 1, which YAML reads as true."""
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if field is None or not takes_numbers_only(field.annotation):
                continue
            if any(isinstance(one, bool) for one in (value if isinstance(value, (list, tuple)) else [value])):
                truth = "YAML reads yes, no, on, off, true and false as truth values"
                raise ValueError(f"{name} must have numbers only; got {value!r}. {truth}")
        return values


def paths_of(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yields the paths of all settings of a section, and of the sections in it, each before what it contains."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from paths_of(field.annotation, f"{prefix}{name}.")
