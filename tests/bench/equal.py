"""Whether what somebody has written is right: every row and column as the oracle has them, and Redis too."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb
import pyarrow.parquet as pq
from redis import Redis

from cli.setup import GEO
from clickstream.schema import EVENT
from clickstream.settings import Lake, Settings
from tests import oracle
from tests.bench.records import Records
from tests.jobs import last_accesses, table_rows


def differences(
    records: Records, lake: Path, redis: Redis, offers: Sequence[Mapping[str, Any]] | None = None
) -> list[str]:
    """Return a sentence for each thing that is wrong with the tables, the users in Redis, or the offers, if any are
    sent."""
    want = _expected(records) if offers is not None else replace(_expected(records), offers=[])
    return [
        *oracle.differences(want, _rows(lake, "enriched"), _rows(lake, "rejected"), offers or [], last_accesses(redis)),
        *unlike("raw", _raw(records), _rows(lake, "raw")),
    ]


def differences_of_events(records: Records, lake: Path, redis: Redis) -> list[str]:
    """Compare just the columns of the events: for those who look nothing up, and keep neither origin nor rejected."""
    return unlike("event", _events(_expected(records).enriched), _events(_rows(lake, "enriched")))


def unlike(label: str, want: Iterable[Mapping[str, Any]], got: Iterable[Mapping[str, Any]]) -> list[str]:
    """Compare rows in whatever order: a sentence for each that is missing, and for each there is too much of."""
    wanted, found = Counter(map(_spelled, want)), Counter(map(_spelled, got))
    return [
        *(f"{label} {row} is missing" for row in (wanted - found).elements()),
        *(f"{label} {row} should not be there" for row in (found - wanted).elements()),
    ]


@lru_cache(maxsize=1)
def _expected(records: Records) -> oracle.Expected:
    arrived = [
        oracle.Arrived(row["payload"], row["arrival_timestamp"], row["shard_id"], row["sequence_number"])
        for file in records.files()
        for row in pq.read_table(file).to_pylist()
    ]
    with maxminddb.open_database(GEO) as places:
        return oracle.expected(arrived, places.get, records.names())


def _raw(records: Records) -> Iterator[dict[str, Any]]:
    for file in records.files():
        for row in pq.read_table(file).to_pylist():
            yield row | dict(zip(oracle.PARTITION, f"{row['arrival_timestamp']:%Y %m %d %H}".split(), strict=True))


def _rows(lake: Path, table: str) -> list[dict[str, Any]]:
    return table_rows(Settings(lake=Lake(root=lake.as_uri())), table)


def _events(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    names = [column.name for column in EVENT]
    return ({name: row[name] for name in names} for row in rows)


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_spelled(value[key])}" for key in sorted(value))
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else repr(value)
