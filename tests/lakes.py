"""Small lakes for tests: written by the batch function as the job would write them, and damaged file by file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickstream.batch import Arrived
from clickstream.schema import ENRICHED, PARTITION, RAW, REJECTED
from connectors.lake import Lake
from enrichment.process import Process


def write_batch(lake: Lake, process: Process, arrived: Arrived, name: str) -> None:
    """Process a batch and write what comes of it, a file for each table and hour."""
    rows = pa.table(process(arrived))
    is_event = pc.is_null(rows["reason"])
    for table, schema, some in (
        ("raw", RAW, rows),
        ("enriched", ENRICHED, rows.filter(is_event)),
        ("rejected", REJECTED, rows.filter(pc.invert(is_event))),
    ):
        for hour in pc.unique(some["hour"]).to_pylist():
            of_hour = some.filter(pc.equal(some["hour"], hour))
            partition = "/".join(f"{column.name}={of_hour[column.name][0]}" for column in PARTITION)
            lake.write(table, partition, name, of_hour.select(schema.names))


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
