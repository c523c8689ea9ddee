"""Links, files and modules that the documentation names exist, and every page is reached from the index."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, inline_code, name_of, pages, prose

ALL = [*pages(), ROOT / "CHANGELOG.md"]
PACKAGES = "dream_ray|docs|cli|config|core|data|distributed|engine|nets|storage|benchmarks|tests|scripts|deploy|sweeps"
PATH = re.compile(rf"(?:{PACKAGES})/[\w./-]*")


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]


def heading_ids(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_links_have_a_target(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in heading_ids(path), link


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_files_and_modules_exist(page: Path) -> None:
    named = [code for code in inline_code(page) if PATH.fullmatch(code)]
    assert not [name for name in named if not ((ROOT / name).exists() or (ROOT / "dream_ray" / name).exists())]


def test_the_index_names_every_page_once() -> None:
    index = ROOT / "docs" / "index.md"
    named = [(index.parent / link).resolve() for link in links(index)]
    assert sorted(named) == sorted(set(pages()) - {ROOT / "README.md", ROOT / "CONTRIBUTING.md", index})


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_pages_that_the_code_names_exist() -> None:
    folders = ("benchmarks", "deploy", "dream_ray", "scripts", "sweeps", "tests")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sh", ".yaml")
    ]
    named = {name for path in files for name in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert named and not [name for name in named if not (ROOT / name).exists()]
