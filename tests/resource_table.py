"""The table of docs/aws.md that says of each resource how far it is tested: `python -m tests.resource_table` renews it.

A row is edited by hand when something more was shown. Renewing keeps what rows say, adds resources that are new as no
more than what is shown by itself, and drops those that are gone.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.api_requests import validated
from tests.templates import FILES, ORDER, read

PAGE = Path(__file__).parents[1] / "docs" / "aws.md"
PROVEN, VALIDATED, NEVER = "behaviour proven", "request validated", "never run"
REQUESTS = "tests/unit/test_requests.py"
HEAD = "| part | type | resources | how far | shown by |\n|---|---|---|---|---|\n"

_TABLE = re.compile(re.escape(HEAD) + r"((?:\|.*\|\n)+)")


class Shown(NamedTuple):
    """How far a resource is tested, and the test that shows it."""

    status: str
    by: str


def listed(page: str) -> dict[tuple[str, str, str], Shown]:
    """Read the table: part, type and logical id of each resource, and what is said of it."""
    found = _TABLE.search(page)
    assert found, f"{PAGE} has no table that begins with {HEAD}"
    said: dict[tuple[str, str, str], Shown] = {}
    for line in found[1].splitlines():
        part, kind, names, status, by = (cell.strip() for cell in line.strip("|").split("|"))
        for name in names.split():
            assert (part, kind, name) not in said, f"{part} {name} is listed twice"
            said[part, kind, name] = Shown(status, by.strip("`"))
    return said


def existing() -> list[tuple[str, str, str]]:
    """List part, type and logical id of each resource of the templates, in the order of the parts."""
    files = sorted(FILES, key=lambda file: ORDER.index(file.stem))
    return [
        (file.stem, str(said["Type"]), str(name)) for file in files for name, said in read(file)["Resources"].items()
    ]


def table(said: dict[tuple[str, str, str], Shown]) -> str:
    """Write the table, a row for all of a kind that are shown alike."""
    rows: dict[tuple[str, str, Shown], list[str]] = defaultdict(list)
    for (part, kind, name), shown in said.items():
        rows[part, kind, shown].append(name)
    lines = [
        f"| {part} | {kind} | {' '.join(names)} | {shown.status} | {f'`{shown.by}`' if shown.by else ''} |\n"
        for (part, kind, shown), names in rows.items()
    ]
    return HEAD + "".join(lines)


def main() -> None:
    """Renew the table in docs/aws.md."""
    page = PAGE.read_text()
    before, by_itself = listed(page), validated()
    said = {
        (part, kind, name): before.get(
            (part, kind, name),
            Shown(VALIDATED, REQUESTS) if (part, name) in by_itself else Shown(NEVER, ""),
        )
        for part, kind, name in existing()
    }
    PAGE.write_text(_TABLE.sub(lambda _: table(said), page))


if __name__ == "__main__":
    main()
