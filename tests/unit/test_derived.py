"""What the templates derive from the description of an event."""

from pathlib import Path

import pytest

from deploy import derived

FILES = sorted(derived.TEMPLATES.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_template_says_what_the_description_says_today(file: Path) -> None:
    assert derived.derived(file.read_text()) == file.read_text(), "next: python -m deploy.derived, and read the diff"


def test_a_block_is_written_at_its_depth_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(derived.BLOCKS, "names", lambda last: [{"Name": "a"}, {"Name": last}])

    written = derived.derived("X:\n  # derived: names b\n  - stale\n  # derived end\nY: 1\n")

    assert written == "X:\n  # derived: names b\n  - Name: a\n  - Name: b\n  # derived end\nY: 1\n"
    assert derived.derived(written) == written
