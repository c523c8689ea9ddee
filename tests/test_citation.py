"""CITATION.cff describes the released version."""

from pathlib import Path

import yaml

import dream_ray

CITATION = Path(__file__).resolve().parents[1] / "CITATION.cff"


def test_the_citation_names_the_current_version() -> None:
    citation = yaml.safe_load(CITATION.read_text())
    assert str(citation["version"]) == dream_ray.__version__
    assert citation["preferred-citation"]["doi"] == "10.48550/arXiv.2310.15052"
