"""The warning before a run that no split is left to evaluate on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.data.store.manifest import Manifest

WAYS = {
    "validation": "keep the validation images out with --set data.include_validation=false",
    "neither": "ingest them with --validation 0.1 and set data.include_validation=false",
}


class Begun(Exception):  # noqa: N818 - it is no error
    """The work began."""


def store_without(digits_store: str, directory: Path, *splits: str) -> str:
    """Writes the manifest of a store without some splits."""
    manifest = Manifest.read(digits_store)
    counts = {split: (0,) * 10 if split in splits else manifest.counts[split] for split in manifest.counts}
    files = tuple(file for file in manifest.files if file.split not in splits)
    replace(manifest, counts=counts, files=files).write(str(directory))
    return str(directory)


@pytest.mark.parametrize("function", ["distill", "plan"])
@pytest.mark.parametrize(
    ("missing", "include_validation", "way"),
    [
        (("test",), True, "validation"),
        (("test", "validation"), True, "neither"),
        (("test", "validation"), False, "neither"),
        (("test",), False, None),
        (("validation",), True, None),
        ((), True, None),
    ],
)
def test_a_run_that_could_not_be_evaluated_warns_before_its_work(
    digits_store: str,
    tmp_path: Path,
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    function: str,
    missing: tuple[str, ...],
    include_validation: bool,
    way: str | None,
) -> None:
    def begin(*arguments: Any, **options: Any) -> None:
        raise Begun

    for name in ("begin_run", "plan_run"):
        monkeypatch.setattr(f"dream_ray.engine.planning.plan.{name}", begin)
    config = parse_config({**tiny, "data": {"include_validation": include_validation}})
    store = store_without(digits_store, tmp_path, *missing)
    out = {"out": str(tmp_path / "run")} if function == "distill" else {}
    with pytest.raises(Begun):
        getattr(api, function)(config, store=store, local=True, **out)
    warned = [record.getMessage() for record in caplog.records if "could not be evaluated" in record.getMessage()]
    if way is None:
        assert not warned
    else:
        assert len(warned) == 1 and "--test-fraction 0.2 or --test SOURCE" in warned[0] and WAYS[way] in warned[0]
