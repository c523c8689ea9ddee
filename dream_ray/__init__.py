"""Distil large labelled image sets into a few synthetic images per class with DREAM+ on Ray.

Every command of `dream-ray` is a function here, with the same arguments:

    import dream_ray

    dream_ray.ingest("digits", "runs/digits", local=True)
    config = dream_ray.load_config(preset="smoke")
    dataset = dream_ray.distill(config, store="runs/digits", out="runs/smoke", local=True)
    rows = dream_ray.evaluate("runs/smoke", local=True)

`dataset` is a PyTorch dataset of 10 images. Without `local=True`, the work runs on Ray: the cluster at RAY_ADDRESS, or
a local one.

Stores and settings:
    ingest          write an image set as a store
    load_config     read settings from a preset or a YAML file
    suggest         suggest settings for a store and a time budget
Runs:
    plan            predict memory, time and traffic of a run
    project         project the time of a preset to GPUs that are not at hand
    distill         distil a store into a synthetic set
    resume          continue a run from its last checkpoint
    status          read the state of a run from its directory
    select          write a set of real images: random, k-means, herding or easy ones
    evaluate        train networks on a synthetic set and test them
    diagnose        compare what the selection strategies select
    load_synthetic  load a synthetic set as a PyTorch dataset
    compare         compare runs of one store
    list_runs       list the runs, sweeps and experiments below a directory
    export          write a synthetic set in a format of other programs
Models:
    train           train a network once, or take its weights from elsewhere
    load_model      read a model that `train` wrote
    train_pool      train several networks side by side, and write them as a pool
    load_pool       read the models of a pool
Sweeps:
    sweep           search for settings
    resume_sweep    continue a search
Experiments:
    experiment      run, evaluate and report a table of arms and seeds

`help(dream_ray.distill)` explains the arguments of a function. Wrong arguments raise `UsageError`, failed work raises
`RunError`; each says what to do. PyTorch and Ray are imported by the first function that needs them.
"""

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, without the time that importing typing takes

if TYPE_CHECKING:
    from dream_ray import config as config
    from dream_ray import sets as sets
    from dream_ray.api import (
        compare,
        diagnose,
        distill,
        evaluate,
        experiment,
        export,
        ingest,
        list_runs,
        load_model,
        load_pool,
        load_synthetic,
        plan,
        project,
        resume,
        resume_sweep,
        select,
        status,
        suggest,
        sweep,
        train,
        train_pool,
    )
    from dream_ray.config import Config, load_config
    from dream_ray.config.sections import Network
    from dream_ray.data.ingest import IngestSettings
    from dream_ray.data.store.manifest import Manifest
    from dream_ray.distributed.tune.search import SweepResult
    from dream_ray.engine.evaluation.comparison import Comparison
    from dream_ray.engine.evaluation.evaluate import EvaluationResult
    from dream_ray.engine.models.model import Model
    from dream_ray.engine.planning.run_plan import RunPlan
    from dream_ray.engine.planning.suggest import Suggestion
    from dream_ray.engine.progress.status import Status
    from dream_ray.engine.run.dataset import SyntheticDataset
    from dream_ray.errors import RunError, UsageError
    from dream_ray.sets.exports import Exported
else:
    _MODULES = {
        **dict.fromkeys(("compare", "diagnose", "distill", "evaluate", "experiment", "export"), "dream_ray.api"),
        **dict.fromkeys(("ingest", "list_runs", "load_synthetic", "plan", "project", "resume"), "dream_ray.api"),
        **dict.fromkeys(("resume_sweep", "select", "status", "suggest", "sweep"), "dream_ray.api"),
        **dict.fromkeys(("load_model", "load_pool", "train", "train_pool"), "dream_ray.api"),
        **dict.fromkeys(("Config", "load_config"), "dream_ray.config"),
        "Comparison": "dream_ray.engine.evaluation.comparison",
        "EvaluationResult": "dream_ray.engine.evaluation.evaluate",
        "Exported": "dream_ray.sets.exports",
        "IngestSettings": "dream_ray.data.ingest",
        "Manifest": "dream_ray.data.store.manifest",
        "Model": "dream_ray.engine.models.model",
        "Network": "dream_ray.config.sections",
        "RunError": "dream_ray.errors",
        "RunPlan": "dream_ray.engine.planning.run_plan",
        "Suggestion": "dream_ray.engine.planning.suggest",
        "Status": "dream_ray.engine.progress.status",
        "SweepResult": "dream_ray.distributed.tune.search",
        "SyntheticDataset": "dream_ray.engine.run.dataset",
        "UsageError": "dream_ray.errors",
    }

    _PACKAGES = ("config", "sets")

    def __getattr__(name):
        """Imports a public name, or a package that users call, when it is first used."""
        if name not in _MODULES and name not in _PACKAGES:
            raise AttributeError(f"module 'dream_ray' has no attribute {name!r}")
        from importlib import import_module

        if name in _PACKAGES:
            return import_module(f"dream_ray.{name}")
        found = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return found

    def __dir__():
        """Lists the public names, whether they are imported or not."""
        return sorted(__all__)


__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Config",
    "EvaluationResult",
    "Exported",
    "IngestSettings",
    "Manifest",
    "Model",
    "Network",
    "RunError",
    "RunPlan",
    "Status",
    "Suggestion",
    "SweepResult",
    "SyntheticDataset",
    "UsageError",
    "__version__",
    "compare",
    "diagnose",
    "distill",
    "evaluate",
    "experiment",
    "export",
    "ingest",
    "list_runs",
    "load_config",
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
