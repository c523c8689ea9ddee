"""The Python API: the same programs as the command line, as functions.

A module that takes seconds to import (PyTorch, Ray) is imported by the function that needs it, after its arguments have
been checked.
"""

from dream_ray.api.evaluation import evaluate
from dream_ray.api.runs import distill, load_synthetic, plan, resume, status
from dream_ray.api.stores import ingest
from dream_ray.api.sweeps import resume_sweep, sweep

__all__ = ["distill", "evaluate", "ingest", "load_synthetic", "plan", "resume", "resume_sweep", "status", "sweep"]
