"""The function that shows what the strategies select."""

from typing import Any

from dream_ray import storage
from dream_ray.config.given import GivenConfig, config_of
from dream_ray.data.store.store import Store
from dream_ray.engine.diagnosis.options import USUAL_CLASSES, USUAL_SELECTIONS, check_diagnosis, most_selections
from dream_ray.engine.progress.display import Show, showing
from dream_ray.engine.run.directory import open_run
from dream_ray.engine.run.spec import device_rule
from dream_ray.errors import UsageError, check_rules


def diagnose(
    *,
    run: storage.StrPath | None = None,
    config: GivenConfig | None = None,
    store: storage.StrPath | None = None,
    out: storage.StrPath | None = None,
    selections: int | None = None,
    num_classes: int | None = None,
    device: str = "auto",
    cpus_per_worker: int = 1,
    progress: Show | bool = True,
) -> dict[str, Any]:
    """Selects real images by every strategy, and compares gradients, diversity and time; needs no Ray.

    The selections are those at the beginning of outer step 0, under networks that are trained here.

    Args:
        run: Directory of a run, finished or not; None: `config` and `store` are given.
        config: Settings, from `load_config` or `Config(...)`; or the name of a preset, or the path of a YAML file.
        store: Store that `ingest` wrote.
        out: Directory for the files; None: `diagnosis` in the directory of the run.
        selections: Number of selections; None: 3, or all of an outer step if there are fewer.
        num_classes: Number of classes, from the first one on; None: 10, or all.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of the CPU.
        progress: As for `ingest`.

    Returns:
        The numbers that are also written to `out`/diagnosis.json: for each strategy the norms of gradients, distinct
        images, overlap and MMD, and the seconds of the steps. Pictures and a page are written beside it.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed.
    """
    out = None if out is None else storage.text_path("out", out)
    if (run is None) == (config is None) or (config is None) != (store is None):
        given = [name for name, value in (("run", run), ("store", store), ("settings", config)) if value is not None]
        raise UsageError(
            "give either a run, or a store with settings (--preset or --config); got " + (" and ".join(given) or "none")
        )
    opened = None if run is None else open_run(storage.text_path("run", run))
    if opened is None:
        assert config is not None and store is not None
        if out is None:
            raise UsageError("out must be given without a run, with --out")
        checked, of_store = config_of(config, None, {}), Store.open(storage.text_path("store", store))
    else:
        checked, of_store, out = opened.config, opened.open_store(), out or opened.file("diagnosis")
    selections = min(USUAL_SELECTIONS, most_selections(checked)) if selections is None else selections
    num_classes = min(USUAL_CLASSES, of_store.num_classes) if num_classes is None else num_classes
    check_rules(device_rule(device))
    check_diagnosis(
        checked,
        of_store,
        out,
        selections=selections,
        num_classes=num_classes,
        threads=cpus_per_worker,
        has_run=opened is not None,
    )
    from dream_ray.engine.diagnosis.diagnose import write_diagnosis

    with showing("Diagnosing", progress=progress) as show:
        return write_diagnosis(
            checked,
            of_store,
            out,
            run=opened,
            selections=selections,
            num_classes=num_classes,
            device_name=device,
            threads=cpus_per_worker,
            progress=show,
        )
