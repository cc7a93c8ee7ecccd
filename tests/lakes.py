"""Small lakes for tests, written as the job writes them: a table's files in folders of the arrival hour."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from clickstream.schema import ENRICHED
from connectors.lake import Lake


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
