"""The setting of a normalisation: that of the store, or numbers."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, FiniteFloat, Tag, model_validator

from dream_ray.config.section import Section


class ChannelStatistics(Section):
    """Mean and standard deviation of each channel, for pixels in [0, 1]."""

    mean: tuple[FiniteFloat, ...]
    """One number per channel."""
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    """One number per channel."""

    @model_validator(mode="after")
    def _one_pair_per_channel(self) -> "ChannelStatistics":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one number per channel; got {len(self.mean)} and {len(self.std)}")
        return self


FORMS = ("<text>", "<section>")
"""Forms of a setting that is a text or a section. They are part of the locations of pydantic's errors."""


def _form_of(value: Any) -> str | None:
    text, section = FORMS
    if isinstance(value, str):
        return text
    return section if isinstance(value, (dict, ChannelStatistics)) else None


# A wrong number in the section would otherwise also be reported as a text that is not "store".
_OneForm = Discriminator(
    _form_of,
    custom_error_type="normalisation",
    custom_error_message="input should be 'store' or a mapping of mean and std",
)
NormalisationChoice = Annotated[
    Annotated[Literal["store"], Tag(FORMS[0])] | Annotated[ChannelStatistics, Tag(FORMS[1])], _OneForm
]
"""The statistics of the store, or numbers of the user."""
