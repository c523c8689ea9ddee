"""Sections of a sweep file."""

from typing import Literal

from pydantic import Field, model_validator

from dream_ray.config.sections import Section


class Sampler(Section):
    """The sampler proposes trials."""

    name: Literal["tpe", "multivariate_tpe", "cma_es", "nsga2", "gp", "random", "grid"] = "tpe"
    """tpe, multivariate_tpe, cma_es (needs the package cmaes), nsga2, gp, random, or grid (choices only)."""
    seed: int = Field(default=0, ge=0)
    """Seed of the proposals."""


class Scheduler(Section):
    """The scheduler stops trials that fall behind. It compares validation accuracies at rungs (`evaluation.every`)."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """asha, hyperband, median (of running means), or none."""
    grace: int = Field(default=1, ge=1)
    """asha, median: rungs that every trial reaches."""
    factor: int = Field(default=3, ge=2)
    """asha, hyperband: one of `factor` trials continues after a rung."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Scheduler":
        if self.grace != 1 and self.name in ("hyperband", "none"):
            raise ValueError(f"grace must be left out with {self.name}, which ignores it; got {self.grace}")
        if self.factor != 3 and self.name in ("median", "none"):
            raise ValueError(f"factor must be left out with {self.name}, which ignores it; got {self.factor}")
        return self


class Budget(Section):
    """The limits of a search; the first one reached ends it."""

    trials: int = Field(default=20, ge=1)
    """Trials that begin."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after which running trials stop and no other begins."""
    outer_steps: int | None = Field(default=None, ge=1)
    """Outer steps of all trials together."""


class Resources(Section):
    """The resources of a trial."""

    workers: int = Field(default=1, ge=1)
    """1: the worker runs in the trial's process. More: Ray Train runs them, and the trial takes half a CPU more."""
    cpus: int = Field(default=1, ge=1)
    """CPUs and threads per worker."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs per worker; null: 1 if the cluster has any and the device is not cpu; 0: workers compute on the CPU."""
    cache_gb: float = Field(default=20, gt=0)
    """Gigabytes of disk for the networks that trials share, and as many for their features of the real images."""
