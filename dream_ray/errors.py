"""The errors that users see (layer 0).

Any other exception that reaches the user is a bug in dream_ray and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Input, configuration or arguments break a rule: the message names the parameter, the rule and the value."""


class RunError(RuntimeError):
    """Work failed although the request was correct: the message names what failed and where."""


class TransientError(RunError):
    """Work failed because of its environment, such as a full disk or a dead node; a retry may succeed."""


def check_rules(*rules: tuple[bool, str]) -> None:
    """Raises UsageError with the text of the first broken rule.

    Args:
        *rules: Whether each rule is broken, and its text.
    """
    for is_broken, text in rules:
        if is_broken:
            raise UsageError(text)


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Returns ": did you mean ...?" with the nearest valid name, to follow what was given; "" if none is near."""
    near = difflib.get_close_matches(str(name), list(valid), n=1)
    return f": did you mean {near[0]}?" if near else ""
