"""The two kinds of failure that a user meets (floor 0).

Everything else that escapes is a bug in dream_ray and keeps its traceback.
"""


class UsageError(ValueError):
    """Input, configuration or arguments break a rule: the message names the parameter, the rule and the value."""


class RunError(RuntimeError):
    """Work that was asked for correctly could not be done: the message says what failed and where."""


class TransientError(RunError):
    """Work failed for what was around it, such as a full disk or machines that died: another time it may be done."""
