"""Times as users write them; sizes are tested with the commands that take them."""

import pytest

from dream_ray.config.sizes import parse_seconds
from dream_ray.errors import UsageError


@pytest.mark.parametrize(
    ("time", "seconds"), [("30s", 30), ("10min", 600), ("2h", 7200), ("1.5 h", 5400), ("45", 45), (0.5, 0.5)]
)
def test_times(time: float | str, seconds: float) -> None:
    assert parse_seconds(time) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "10 days", "5m"])
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"wait must be a time such as 30s, 10min or 2h; got '{text}'"):
        parse_seconds(text)
