"""Tests of the settings of an ingest."""

import pytest

from dream_ray import api
from dream_ray.data.ingest import IngestSettings
from dream_ray.errors import UsageError


def test_settings_are_checked_on_construction():
    with pytest.raises(UsageError, match="encoding must be one of raw, jpeg; got 'png'"):
        IngestSettings(source="digits", encoding="png")


def test_a_size_above_the_pixel_limit_is_refused():
    """Otherwise every image would be refused, after the whole source was read."""
    assert IngestSettings(source="digits", size=9459).size == 9459
    with pytest.raises(UsageError, match="size must be the side of a square of at most 89478485 pixels, .*; got 9460"):
        IngestSettings(source="digits", size=9460)


def test_a_repeated_class_is_refused():
    names = tuple(f"n{number}" for number in range(100))
    with pytest.raises(UsageError, match="classes must be unique; 'n3' occurs twice"):
        IngestSettings(source="digits", classes=(*names, "n7", "n3"))
    assert IngestSettings(source="digits", classes=names).classes == names


@pytest.mark.parametrize("name", ["source", "test"])
def test_relative_paths_are_made_absolute(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for given, absolute in {
        "photos": f"{tmp_path}/photos",
        "../photos/*.tar": f"{tmp_path.parent}/photos/*.tar",
        "digits": "digits",
        "./digits": f"{tmp_path}/digits",
        "torchvision:CIFAR10": "torchvision:CIFAR10",
        "s3://bucket/photos": "s3://bucket/photos",
    }.items():
        settings = IngestSettings(**{"source": "digits", name: given}).absolute()
        assert getattr(settings, name) == absolute


def test_the_manifest_contains_the_absolute_source(make_folder, monkeypatch):
    root = make_folder("f", {"a": 2, "b": 2})
    monkeypatch.chdir(root.parent)
    assert api.ingest(IngestSettings(source="f"), "s", local=True).source == str(root)


def test_test_labels_and_root_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = IngestSettings(source="digits", test="t", test_labels="digits", root="digits")
    assert settings.absolute() == IngestSettings(
        source="digits", test=f"{tmp_path}/t", test_labels=f"{tmp_path}/digits", root=f"{tmp_path}/digits"
    )
    assert IngestSettings(source="").absolute() == IngestSettings(source="")


def test_a_wrong_wait_is_refused_without_ray(tmp_path):
    with pytest.raises(UsageError, match=r"wait must be .*; got 'soon'"):
        api.ingest(IngestSettings(source="digits"), str(tmp_path / "store"), local=True, wait="soon")
    assert not list(tmp_path.iterdir())
