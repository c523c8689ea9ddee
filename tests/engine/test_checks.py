"""Factors that a mosaic of the store's side cannot have."""

import re
from typing import Any

import pytest

from dream_ray.config import parse_config
from dream_ray.data.store import Store
from dream_ray.engine.checks import check_fit
from dream_ray.errors import UsageError

RULE = "factor must have (factor - 1) * ceil(side / factor) < side (8), or whole tiles of a mosaic would be padding; "


@pytest.mark.parametrize(
    ("factor", "decode", "got"),
    [
        (5, "single", "got 5 (the next smaller one is 4)"),
        (9, "single", "got 9 (the next smaller one is 8)"),
        (8, "multi", "got 8 with decode multi, which cuts by 5 too (the next smaller one is 4)"),
        (7, "bound", "got 7 (the next smaller one is 4)"),
    ],
)
def test_a_factor_that_leaves_tiles_empty_is_refused(
    tiny: dict[str, Any], digits_store: str, factor: int, decode: str, got: str
) -> None:
    settings = {**tiny, "factor": factor, "decode": decode}
    with pytest.raises(UsageError, match=f"^{re.escape(RULE + got)}$"):
        check_fit(parse_config(settings), Store.open(digits_store))


@pytest.mark.parametrize(("factor", "decode"), [(1, "single"), (3, "multi"), (4, "multi"), (8, "single"), (8, "bound")])
def test_other_factors_are_possible(tiny: dict[str, Any], digits_store: str, factor: int, decode: str) -> None:
    check_fit(parse_config({**tiny, "factor": factor, "decode": decode}), Store.open(digits_store))
