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
    rows: Counter[str] = field(default_factory=Counter)
    new: dict[str, list[LakeFile]] = field(default_factory=lambda: {table: [] for table in TABLES})
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._seen = {file.path for table in TABLES for file in self.lake.files(table)}

    def update(self) -> "Tally":
        """Count what has been committed meanwhile; a committed file is looked into once."""
        for table in TABLES:
            for file in self.lake.files(table):
                if file.path not in self._seen:
                    self._seen.add(file.path)
                    self.new[table].append(file)
                    self.rows[table] += self.lake.rows(file)
        return self

    @property
    def processed(self) -> int:
        """How many records have come out, as one thing or another."""
        return self.rows["enriched"] + self.rows["rejected"] + self.rows["suppressed"]

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
