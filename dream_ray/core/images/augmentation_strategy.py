"""Parsing of augmentation strategies, without PyTorch, so that settings are checked fast."""

from dream_ray.errors import UsageError

OPERATIONS = ("flip", "color", "crop", "scale", "rotate", "cutout", "resize")


def parse_strategy(strategy: str) -> tuple[frozenset[str], ...]:
    """Parses a strategy: "color_crop_cutout" (all of them), "color|crop|cutout" (one of them) or "none".

    Returns:
        The sets of operations of which each batch draws one.

    Raises:
        UsageError: If it names an unknown operation.
    """
    if strategy in ("", "none"):
        return (frozenset(),)
    alternatives = tuple(frozenset(alternative.split("_")) for alternative in strategy.split("|"))
    if unknown := sorted(frozenset().union(*alternatives) - set(OPERATIONS)):
        raise UsageError(
            f"augmentation must be 'none' or operations of {', '.join(OPERATIONS)} joined by '_' (all of them) or '|' "
            f"(one of them); got {strategy!r} with {', '.join(map(repr, unknown))}"
        )
    return alternatives
