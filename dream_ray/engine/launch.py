"""How a run is started: who works on it. None of it changes the result; it is kept so that a resume does likewise."""

from dataclasses import dataclass

from dream_ray.errors import UsageError

DEFAULT_BANK_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Launch:
    """Who works on a run.

    Attributes:
        workers: Ray Train workers; threads with `local`.
        min_workers: How few of them may begin, or go on when nodes are lost; None: all must be there.
        local: In one process, without Ray.
        producers: Who trains the networks ahead of the workers; 0: every worker itself; None: by the resources.
        bank: Directory that keeps the networks, absolute; None: nobody does.
        bank_bytes: The most that it may hold.
        feature_bytes: The most that a bank of features beside it may hold; 0: there is none, which only runs of
            equal networks have a use for.
    """

    workers: int = 1
    min_workers: int | None = None
    local: bool = False
    producers: int | None = None
    bank: str | None = None
    bank_bytes: int = DEFAULT_BANK_BYTES
    feature_bytes: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError where a value breaks a rule."""
        if self.workers < 1:
            raise UsageError(f"workers must be an int >= 1; got {self.workers}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise UsageError(f"min-workers must be an int from 1 to workers ({self.workers}); got {self.min_workers}")
        if self.producers is not None and self.producers < 0:
            raise UsageError(f"producers must be an int >= 0; got {self.producers}")
