"""Tests of the settings of an ingest."""

import pytest

from dream_ray import api
from dream_ray.data.ingest import IngestSettings
from dream_ray.errors import UsageError


def test_they_are_checked_when_they_are_made():
    with pytest.raises(UsageError, match="encoding must be one of raw, jpeg; got 'png'"):
        IngestSettings(source="digits", encoding="png")


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


def test_a_store_says_where_its_images_were(make_folder, monkeypatch):
    root = make_folder("f", {"a": 2, "b": 2})
    monkeypatch.chdir(root.parent)
    assert api.ingest(IngestSettings(source="f"), "s", local=True).source == str(root)


def test_other_paths_are_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = IngestSettings(source="digits", test="t", test_labels="digits", root="digits")
    assert settings.absolute() == IngestSettings(
        source="digits", test=f"{tmp_path}/t", test_labels=f"{tmp_path}/digits", root=f"{tmp_path}/digits"
    )
    assert IngestSettings(source="").absolute() == IngestSettings(source="")
