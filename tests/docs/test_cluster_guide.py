"""The messages in the cluster guide are those of the program."""

import re

from tests.docs.pages import ROOT

GUIDE = (ROOT / "docs" / "how-to" / "run-on-a-cluster.md").read_text()


def test_messages_exist() -> None:
    """The comparison ignores the variable parts of a message."""
    sources = [path.read_text() for path in [*ROOT.glob("dream_ray/**/*.py"), ROOT / "scripts" / "submit.sh"]]
    said = re.sub(r"\{[^{}]*\}", "", re.sub(r'"\s*f?"', "", "\n".join(sources)))
    messages = re.findall(r"^\| `([^`]+)`", GUIDE.partition("## When something fails")[2], re.M)
    assert len(messages) > 10
    varying = r"\.\.\.|\d+|GPUs?|s3://[^ :]*|node X|ACCESS_DENIED|: |(?<=cannot) \w+|^\w+ must"
    parts = [part.strip() for message in messages for part in re.split(varying, message)]
    assert not [part for part in parts if len(part) > 4 and part not in said]
