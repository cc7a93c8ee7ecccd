"""Small lakes for tests, written as the job writes them, by the row or by the batch, and damaged file by file."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickstream.batch import Arrived
from clickstream.schema import ENRICHED, PARTITION
from connectors.lake import Lake
from enrichment.process import Process
from tests.events import TABLES, stored


def write_enriched(root: Path, events: Iterable[Mapping[str, Any]], name: str = "part-0", **columns: Any) -> Lake:
    """Write events, each with what it says of its enrichment and origin, `columns` for all that say nothing.

    An event arrives when it happens unless it says otherwise, as the n-th of its shard.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, event in enumerate(events, 1):
        row = {
            "geo_status": "found",
            "name_status": "found",
            "shard_id": "shardId-000000000000",
            "sequence_number": str(number),
            **columns,
            **event,
        }
        for column in ("timestamp", "insertion_timestamp", "arrival_timestamp"):
            value = row.get(column, row["timestamp"])
            row[column] = value if isinstance(value, datetime) else datetime.fromisoformat(value).replace(tzinfo=UTC)
        rows[row["arrival_timestamp"].strftime("year=%Y/month=%m/day=%d/hour=%H")].append(row)
    lake = Lake(str(root))
    without_zone = pa.schema(
        [(c.name, pa.timestamp("us") if pa.types.is_timestamp(c.type) else c.type) for c in ENRICHED]
    )
    for partition, some in rows.items():
        lake.write("enriched", partition, name, pa.Table.from_pylist(some, ENRICHED).cast(without_zone))
    return lake


def write_batch(lake: Lake, process: Process, arrived: Arrived, name: str) -> None:
    """Process a batch and write what comes of it, a file for each table and hour."""
    for table, some in stored(process(arrived)).items():
        for hour in pc.unique(some["hour"]).to_pylist():
            of_hour = some.filter(pc.equal(some["hour"], hour))
            partition = "/".join(f"{column.name}={of_hour[column.name][0]}" for column in PARTITION)
            lake.write(table, partition, name, of_hour.select(TABLES[table].names))


def files(root: Path, table: str) -> list[Path]:
    return sorted((root / table).rglob("part-*"))


def origins(file: Path) -> set[tuple[str, str]]:
    rows = pq.ParquetFile(file).read(["shard_id", "sequence_number"]).to_pylist()
    return {(row["shard_id"], row["sequence_number"]) for row in rows}


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.ParquetFile(file).read()), file, coerce_timestamps="us")


def with_value(column: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Change one value of a table, to another or by a function of it."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        kind = table.schema.field(column)
        return table.set_column(table.schema.names.index(column), kind, pa.array(values, kind.type))

    return change
