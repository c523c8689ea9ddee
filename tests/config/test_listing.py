"""The page of all settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dream_ray import cli
from dream_ray.config import Config
from dream_ray.config.listing import list_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md"


def test_the_page_lists_the_current_settings() -> None:
    assert PAGE.read_text() == list_settings(), "write it anew: dream-ray settings > docs/reference/settings.md"


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dream-ray", "settings"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and capsys.readouterr().out == list_settings()


def test_the_page_lists_every_setting_with_its_values() -> None:
    lines = list_settings().splitlines()
    paths = [line.partition("`")[2].partition("`")[0] for line in lines if line.startswith("- ")]
    # A dump leaves out those of other initialisations.
    of_others = ["path", "digest", "models", "allow_weak_models", "score", "candidates", "crops"]
    of_frozen = ["models", "found", "allow_weak_models"]
    left_out = {"initialisation": of_others, "source": of_frozen, "matching": ["feature_layer", "pairing"]}
    left_out |= {"pixels": ["optimizer", "weight_decay", "betas", "schedule"], "weights": ["label"]}
    shown = list(flat(Config().model_dump(mode="json")))
    shown += [f"{section}.{name}" for section, names in left_out.items() for name in names]
    assert sorted(paths) == sorted(shown)
    starts = (
        "- `batch_real`: int >= 1, or null; default `null`. Real batch of a class",
        "- `pixels.momentum`: number >= 0 and < 1; default `0.5`. Momentum",
        "- `pixels.lr`: number > 0; default `0.005`. Learning rate",
        "- `decode`: `single` or `multi` or `bound`; default `single`. Decode",
        "- `selection.embedding_batch`: `8` or `16` or",
        "- `initialisation.candidates`: int >= 1, or null; default `300`. Random images of a class",
        "- `initialisation.models`: list; default `[]`. Directories of models",
        "- `evaluation.network`: section, or null; default `null`. Network",
        "- `data.normalisation`: `store`, or section; default `store`. Mean",
        "- `data.zca`: true or false; default `false`. Whiten",
    )
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
