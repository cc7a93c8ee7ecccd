"""What a run has put into the lake, counted as the files appear."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow.compute as pc

from clickstream.place import Status
from connectors.lake import Lake, LakeFile

TABLES: Final = ("enriched", "rejected", "suppressed", "raw")


@dataclass
class Tally:
    """Rows committed since the tally was made, by table; files that were there before do not count."""

    lake: Lake
    _before: set[str] = field(default_factory=set)
    _counted: dict[str, dict[str, tuple[LakeFile, int]]] = field(default_factory=lambda: {name: {} for name in TABLES})

    def __post_init__(self) -> None:
        self._before = {file.path for table in TABLES for file in self.lake.files(table)}

    def update(self) -> "Tally":
        """Count what has been committed meanwhile; a committed file is looked into once.

        Ctrl-C may come in the middle of it: a file and its rows are known at once, or not yet.
        """
        for table, counted in self._counted.items():
            for file in self.lake.files(table):
                if file.path not in self._before and file.path not in counted:
                    counted[file.path] = file, self.lake.rows(file)
        return self

    @property
    def new(self) -> dict[str, list[LakeFile]]:
        """The files that each table has got."""
        return {table: [file for file, _ in counted.values()] for table, counted in self._counted.items()}

    @property
    def rows(self) -> Counter[str]:
        """How many rows each table has got."""
        return Counter({table: sum(rows for _, rows in counted.values()) for table, counted in self._counted.items()})

    @property
    def processed(self) -> int:
        """How many records have come out, as one thing or another."""
        rows = self.rows
        return rows["enriched"] + rows["rejected"] + rows["suppressed"]

    def facts(self) -> dict[str, Any]:
        """Sum up: the counts, and what the rows say of users and places."""
        users: set[str] = set()
        unknown_location = 0
        for file in self.new["enriched"]:
            table = self.lake.read(file, ["user_id", "geo_status"])
            users.update(pc.unique(table["user_id"]).to_pylist())
            unknown_location += pc.sum(pc.not_equal(table["geo_status"], str(Status.FOUND))).as_py() or 0
        reasons: Counter[str] = Counter()
        for file in self.new["rejected"]:
            reasons.update(self.lake.read(file, ["reason"])["reason"].to_pylist())
        return {
            "enriched": self.rows["enriched"],
            "rejected": self.rows["rejected"],
            "suppressed": self.rows["suppressed"],
            "raw": self.rows["raw"],
            "users_seen": len(users),
            "unknown_location": unknown_location,
            "rejected_reasons": dict(reasons.most_common()),
            **{f"{table}_bytes": sum(file.size for file in self.new[table]) for table in TABLES},
        }

    def some(self, table: str, count: int) -> Iterator[dict[str, Any]]:
        """Give a few rows of a table."""
        for file in self.new[table]:
            for row in self.lake.read(file).slice(0, count).to_pylist():
                if count <= 0:
                    return
                count -= 1
                yield row
