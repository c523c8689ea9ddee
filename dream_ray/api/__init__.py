"""The Python API: the commands of the command line as functions.

A function that needs PyTorch or Ray, which take seconds to import, imports them after it has checked its arguments.
"""

from dream_ray.api.comparison import compare
from dream_ray.api.diagnosis import diagnose
from dream_ray.api.evaluation import evaluate, load_synthetic
from dream_ray.api.experiments import experiment
from dream_ray.api.exports import export
from dream_ray.api.listing import list_runs
from dream_ray.api.models import load_model, train
from dream_ray.api.plans import plan, project, suggest
from dream_ray.api.pools import load_pool, train_pool
from dream_ray.api.runs import distill, resume, status
from dream_ray.api.selections import select
from dream_ray.api.stores import ingest
from dream_ray.api.sweeps import resume_sweep, sweep

__all__ = [
    "compare",
    "diagnose",
    "distill",
    "evaluate",
    "experiment",
    "export",
    "ingest",
    "list_runs",
    "load_model",
    "load_pool",
    "load_synthetic",
    "plan",
    "project",
    "resume",
    "resume_sweep",
    "select",
    "status",
    "suggest",
    "sweep",
    "train",
    "train_pool",
]
