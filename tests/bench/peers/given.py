"""What every peer is given: its records and the doors; how it says how far it is, and writes its part of the lake."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.decode import Rejected
from clickstream.event import Event
from clickstream.place import Place
from clickstream.schema import ENRICHED, EVENT, ORIGIN, RAW, REASON, REJECTED
from connectors.geo_mmdb import Mmdb
from connectors.redis_door import RedisDoor
from enrichment.shared import LastAccesses
from enrichment.steps import MAX_CLOCK_LEAD

Access = tuple[str, str, str, str]
"""A user, the moment and the sequence number of the last access, and where it was."""

DONE = "done"
ROW_GROUP = 100_000  # rows
HOUR = 3_600_000_000  # microseconds
EPOCH = datetime(1970, 1, 1)  # UTC, as all that is naive here


class Record(NamedTuple):
    """One record, in the columns of the raw archive; it arrived at `arrival` microseconds after 1970."""

    payload: bytes
    arrival: int
    shard_id: str
    sequence_number: str

    @property
    def hour(self) -> int:
        """The hour of arrival, counted from 1970."""
        return self.arrival // HOUR


class Rejection(NamedTuple):
    """A record that is no event."""

    why: Rejected
    record: Record

    @property
    def hour(self) -> int:
        return self.record.hour


class Enriched(NamedTuple):
    """An event and what was found out about it."""

    event: Event
    place: Place | None
    name: str | None
    record: Record

    @property
    def hour(self) -> int:
        return self.record.hour


@dataclass(frozen=True, slots=True)
class Given:
    """The share of one process: its files of records, and where its output goes."""

    files: list[Path]
    index: int
    lake: Path
    redis: str
    mmdb: Path

    @classmethod
    def read(cls) -> "Given":
        """Read the command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--files", type=Path, nargs="*", required=True)
        parser.add_argument("--index", type=int, required=True)
        parser.add_argument("--lake", type=Path, required=True)
        parser.add_argument("--redis", required=True)
        parser.add_argument("--mmdb", type=Path, required=True)
        return cls(**vars(parser.parse_args()))

    def door(self) -> RedisDoor:
        """Open Redis."""
        return RedisDoor.connect(self.redis, timeout=60)

    def geo(self) -> Mmdb:
        """Open the geo database."""
        return Mmdb(self.mmdb)


def ready() -> None:
    """Say that all is ready, and wait until the others are."""
    say(0)
    sys.stdin.readline()


def say(processed: int) -> None:
    """Say how many records are done."""
    print(processed, flush=True)


def end() -> None:
    """Say that all is done, and stay until it has been heard: what a process that is gone has used, nobody can see."""
    print(DONE, flush=True)
    sys.stdin.read()


def records(file: Path, size: int) -> Iterator[list[Record]]:
    """Read a file's records, so many at a time."""
    for batch in pq.ParquetFile(file).iter_batches(size):
        columns = [batch.column(column.name) for column in RAW]
        columns[1] = columns[1].cast(pa.int64())
        yield list(map(Record, *(column.to_numpy(zero_copy_only=False).tolist() for column in columns)))


def access(row: Enriched) -> Access:
    """Lay out an event as its user's last access."""
    latest = EPOCH + timedelta(microseconds=row.record.arrival) + MAX_CLOCK_LEAD
    moment = min(row.event.timestamp.replace(tzinfo=None), latest).isoformat(" ", "microseconds")
    return row.event.user_id, moment, row.record.sequence_number, str(row.place) if row.place else "unknown"


def last_accesses(accesses: Iterable[Access]) -> LastAccesses:
    """Lay out some accesses, at least one, as Redis takes them."""
    return LastAccesses(*zip(*accesses, strict=True))


class Tables:
    """Writes rows as the job's tables: Snappy Parquet, a file for each table and hour of arrival."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._rows: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self._writers: dict[tuple[str, int], pq.ParquetWriter] = {}

    def add(self, rows: Sequence[Record | Rejection | Enriched]) -> None:
        """Take rows of one kind into the table of that kind."""
        for (kind, hour), some in groupby(rows, lambda row: (type(row).__name__, row.hour)):
            waiting = self._rows[kind, hour]
            waiting += some
            if len(waiting) >= ROW_GROUP:
                self._write(kind, hour)

    def close(self) -> None:
        """Write what waits, and finish all files."""
        for kind, hour in self._rows:
            self._write(kind, hour)
        for writer in self._writers.values():
            writer.close()

    def _write(self, kind: str, hour: int) -> None:
        name, schema, columns = _TABLES[kind]
        if (kind, hour) not in self._writers:
            file = self._given.lake / name / partition(hour) / f"part-{self._given.index}"
            file.parent.mkdir(parents=True, exist_ok=True)
            self._writers[kind, hour] = pq.ParquetWriter(
                file, schema, compression="snappy", use_dictionary=name == "enriched", coerce_timestamps="us"
            )
        rows = self._rows[kind, hour]
        self._writers[kind, hour].write_table(pa.table(columns(rows), schema=schema))
        rows.clear()


def partition(hour: int) -> str:
    """Name the folder of an hour, counted from 1970."""
    return f"{EPOCH + timedelta(hours=hour):year=%Y/month=%m/day=%d/hour=%H}"


def _raw(rows: Sequence[Record]) -> list[pa.Array]:
    return [pa.array([row.payload for row in rows], pa.binary()), *_origin(rows)]


def _rejected(rows: Sequence[Rejection]) -> list[pa.Array]:
    records = [row.record for row in rows]
    why = [pa.array([getattr(row.why, column.name) for row in rows], column.type) for column in REASON]
    return [pa.array([record.payload for record in records], pa.binary()), *why, *_origin(records)]


def _enriched(rows: Sequence[Enriched]) -> list[pa.Array]:
    events = [row.event for row in rows]
    places = [row.place or _NOWHERE for row in rows]
    return [
        *(_column(events, column) for column in EVENT),
        pa.array([row.name for row in rows], pa.string()),
        *(pa.array([getattr(place, name) for place in places], pa.string()) for name in ("country", "region", "city")),
        pa.array([_status(row.place) for row in rows], pa.string()),
        pa.array([_status(row.name) for row in rows], pa.string()),
        *_origin([row.record for row in rows]),
    ]


def _origin(records: Sequence[Record]) -> list[pa.Array]:
    return [
        pa.array([record.arrival for record in records], pa.int64()).cast(ORIGIN[0].type),
        pa.array([record.shard_id for record in records], pa.string()),
        pa.array([record.sequence_number for record in records], pa.string()),
    ]


def _column(objects: Sequence[Any], column: pa.Field) -> pa.Array:
    values = list(map(attrgetter(column.name), objects))
    if pa.types.is_struct(column.type):
        return pa.StructArray.from_arrays([_column(values, inner) for inner in column.type], fields=list(column.type))
    return pa.array(values, column.type)


def _status(value: object) -> str:
    return "unknown" if value is None else "found"


_NOWHERE = Place(None)  # type: ignore[arg-type]
_TABLES: dict[str, tuple[str, pa.Schema, Callable[[Any], list[pa.Array]]]] = {
    "Record": ("raw", RAW, _raw),
    "Rejection": ("rejected", REJECTED, _rejected),
    "Enriched": ("enriched", ENRICHED, _enriched),
}
