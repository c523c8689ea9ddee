"""Parts of a sweep file."""

from typing import Literal

from pydantic import Field, model_validator

from dream_ray.config.sections import Section


class Sampler(Section):
    """Who proposes the next trial."""

    name: Literal["tpe", "multivariate_tpe", "cma_es", "nsga2", "gp", "random", "grid"] = "tpe"
    """tpe, multivariate_tpe, cma_es (needs the package cmaes), nsga2, gp, random, or grid (choices alone)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals."""


class Scheduler(Section):
    """Who stops trials that are behind; a rung is a validation accuracy (`evaluation.every` steps)."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """asha, hyperband, median (of the running averages), or none."""
    grace: int = Field(default=1, ge=1)
    """asha, median: rungs that every trial gets."""
    factor: int = Field(default=3, ge=2)
    """asha, hyperband: one of `factor` trials goes on from a rung."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Scheduler":
        if self.grace != 1 and self.name in ("hyperband", "none"):
            raise ValueError(f"grace must be left out with {self.name}, which does not look at it; got {self.grace}")
        if self.factor != 3 and self.name in ("median", "none"):
            raise ValueError(f"factor must be left out with {self.name}, which does not look at it; got {self.factor}")
        return self


class Budget(Section):
    """When the search ends: at the first of these that is reached."""

    trials: int = Field(default=20, ge=1)
    """Trials that are begun."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after which none is begun any more and the running ones are stopped."""
    outer_steps: int | None = Field(default=None, ge=1)
    """Outer steps of all trials together."""


class Resources(Section):
    """What a trial has."""

    workers: int = Field(default=1, ge=1)
    """One: the trial's own process; more: Ray Train workers, beside half a CPU for the trial itself."""
    cpus: int = Field(default=1, ge=1)
    """CPUs, and threads, of a worker."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs of a worker; null: 1 where the cluster has any, unless the device is cpu; 0: it computes on the CPU."""
    bank_gb: float = Field(default=20, gt=0)
    """Gigabytes of disk for the networks that trials share, and as many for their features of the real images."""
