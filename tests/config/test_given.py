"""The settings that functions of the Python API are given."""

from pathlib import Path
from typing import Any

import pytest

import dream_ray
from dream_ray.config.given import config_of
from dream_ray.errors import UsageError


def test_a_preset_follows_further_settings() -> None:
    """As with --set: pixel rates of a preset follow the number of images."""
    given = {"pixels.momentum": 0.1, "network": {"options": {"width": 8}}}
    found = config_of("cifar10-ipc10", given, {"ipc": 50, "seed": 3})
    assignments = ["ipc=50", "seed=3", "pixels.momentum=0.1", "network.options.width=8"]
    assert found == dream_ray.load_config(preset="cifar10-ipc10", assignments=assignments)
    assert found.network.options["width"] == 8 and "depth" in found.network.options


@pytest.mark.parametrize("as_path", [False, True])
def test_a_file_is_a_path_or_a_text_that_looks_like_one(tmp_path: Path, as_path: bool) -> None:
    path = tmp_path / "mine"
    path.write_text("preset: smoke\nipc: 2\n")
    found = config_of(path if as_path else str(path), None, {"seed": 4})
    assert (found.ipc, found.seed) == (2, 4)
    assert found == dream_ray.load_config(file=path, assignments=["seed=4"])


def test_settings_on_top_of_a_config() -> None:
    config = dream_ray.load_config(preset="smoke")
    assert config_of(config, None, {}) is config
    changed = config_of(config, {"pixels": {"lr": 0.5}}, {"network": dream_ray.Network(name="convnet")})
    assert changed.pixels.lr == 0.5 and changed.pixels.momentum == config.pixels.momentum
    assert changed.network == config.network


@pytest.mark.parametrize(
    ("given", "settings", "more", "message"),
    [
        ("cifar10-ipc5", None, {}, "preset"),
        ("nothing.yaml", None, {}, "config file nothing.yaml does not exist"),
        ("smoke", None, {"worker": 2}, "worker is not a known setting"),
        ("smoke", {"ipc": 2}, {"ipc": 3}, "ipc must be given once"),
        ("smoke", {"ipc": 0}, {}, "ipc must follow the rule"),
        (3, None, {}, r"config must be a path \(str or os.PathLike\[str\]\); got 3"),
    ],
)
def test_wrong_settings_are_refused(given: Any, settings: Any, more: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_of(given, settings, more)


def test_another_framework_needs_a_preset_or_a_file() -> None:
    config = dream_ray.load_config(preset="smoke")
    with pytest.raises(UsageError, match="framework must be given with a preset or a file"):
        config_of(config, None, {"framework": "dm"})
    assert config_of(config, None, {"framework": config.framework}) == config
