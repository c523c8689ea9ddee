"""The function that writes sets of real images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.api.evaluation import load_synthetic
from dream_ray.config import Config
from dream_ray.config.given import GivenConfig, config_of
from dream_ray.config.sections import REAL_STRATEGIES
from dream_ray.data.store.manifest import MANIFEST
from dream_ray.data.store.store import Store
from dream_ray.engine.progress.display import Show, showing
from dream_ray.engine.run.spec import MODEL, RunSpec, warn_if_not_evaluable
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.engine.run.dataset import SyntheticDataset


def select(
    store: storage.StrPath,
    *,
    out: storage.StrPath,
    strategy: str | None = None,
    ipc: int | None = None,
    factor: int | None = None,
    models: Sequence[storage.StrPath] = (),
    config: GivenConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: Show | bool = True,
) -> "SyntheticDataset":
    """Writes a set of real images, in the same format as distilled ones.

    The directory is that of a run without steps: `evaluate`, `export`, `compare`, `list_runs` and `load_synthetic` take
    it. The recipe of the set names its images. The same call continues an interrupted selection, to the same bits, and
    returns a finished one.

    Args:
        store: Store that `ingest` wrote.
        out: Directory of the set, new or that of an earlier call.
        strategy: "random", "representative" (k-means), "herding" or "easy" (lowest score of models); the last three
            need `models`. None: that of `config`, if it has no outer steps, as preset imagenet1k-ipc10-easy.
        ipc: Stored images per class; None: likewise.
        factor: A stored image is a mosaic of factor x factor real images; None: likewise, else 1.
        models: Directories of models or pools that `train` and `train_pool` wrote; strategy easy averages the scores
            of several models.
        config: Settings with the recipe of evaluations, as for `distill`; None: those of the default framework.
        settings: Settings on top, as for `distill`, such as initialisation.score, .candidates and .crops.
        local: Select one class after the other in this process, without Ray.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of a task. Equal results need equal threads.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        progress: Show the progress on a terminal or in a notebook; or a function that shows status, classes done and
            classes in all.

    Returns:
        The set, ready to train on; its file is `out`/synthetic.parquet, and is read on first use.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed; the same call continues it.
    """
    store, out = storage.text_path("store", store), storage.text_path("out", out)
    if config is not None and (base := config_of(config, None, {})).is_selection:
        strategy = base.initialisation.strategy if strategy is None else strategy
        ipc, factor = base.ipc if ipc is None else ipc, base.factor if factor is None else factor
        models = models or base.initialisation.models
    if strategy is None or ipc is None:
        raise UsageError(
            "strategy and ipc must be given, with --strategy and --ipc, or a preset that selects, such as "
            "imagenet1k-ipc10-easy"
        )
    if strategy not in REAL_STRATEGIES:
        raise UsageError(f"strategy must be one of {', '.join(REAL_STRATEGIES)}; got {strategy!r}")
    if strategy != "random" and not models:
        raise UsageError(
            f"models must be given with strategy {strategy}: --model MODEL, a directory that `dream-ray train` wrote"
        )
    fixed = {
        "outer_steps": 0,
        "ipc": ipc,
        "factor": 1 if factor is None else factor,
        "initialisation.strategy": strategy,
        "initialisation.models": [storage.text_path("models", model) for model in models],
    }
    if given := [path for path in settings or {} if path in fixed]:
        raise UsageError(f"settings must not name {given[0]}, which an argument of its own or the command sets")
    chosen = config_of(Config() if config is None else config, {**(settings or {}), **fixed}, {})
    spec = RunSpec(
        config=chosen,
        store=store,
        out=out,
        compile="off",
        class_batch=1,
        device=device,
        threads=cpus_per_worker,
        local=local,
    )
    warn_if_not_evaluable(spec.config, Store.open(spec.store))
    from dream_ray.engine.evaluation.real_sets import begin_real_set, real_set_tasks, select_images
    from dream_ray.engine.run.lifecycle import executing

    with open_backend(address, wait, local=local) as backend:
        run = backend.call(begin_real_set, spec, device=device, cpus=cpus_per_worker)
        if not run.is_finished:
            backend.check_visible("store", spec.store, storage.join(spec.store, MANIFEST))
            backend.check_visible("out", run.path, run.file("config.yaml"))
            for model in run.config.initialisation.used_models:
                backend.check_visible("models", model, storage.join(model, MODEL))
            with executing(run), showing("Selecting", progress=progress) as show:
                done, num_classes = 0, run.environment["num_classes"]
                place = {"device": run.environment["device"], "cpus": run.threads}
                for selected in backend.map(select_images, real_set_tasks(run), **place):
                    done += selected
                    show("classes", done, num_classes)
    return load_synthetic(run.path)
