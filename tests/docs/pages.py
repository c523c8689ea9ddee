"""The parts of documentation pages: code blocks with their markers, links, inline code."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n\n?(?:<sub>Tested: ([^<]*)</sub>)?", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the line below it that states its test, or ""."""

    page: Path
    language: str
    text: str
    mark: str

    @property
    def name(self) -> str:
        """A readable id: the page and the first line that is not a comment."""
        lines = [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]
        return f"{name_of(self.page)}: {lines[0][:50] if lines else ''}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages() -> list[Path]:
    """README, CONTRIBUTING and everything under docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages, in order."""
    found = [Block(page, *match.groups("")) for page in pages() for match in _BLOCK.finditer(page.read_text())]
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    """The inline code, with line breaks as spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def commands(text: str) -> list[str]:
    """The commands of a shell block, without comments, continuations and variables."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"\s&&\s|;\s|\s\|\s", _without_comment(line))]
    return [re.sub(r"^(?:[A-Z_]+=\S+ +)+(?=\S)", "", part) for part in parts if part]


def _without_comment(line: str) -> str:
    return re.sub(r"(?:^|\s+)#\s.*$", "", line)
