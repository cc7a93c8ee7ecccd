"""Events for tests: a valid one, of which a test changes what it is about, and what became of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.batch import Arrived, origin
from clickstream.schema import ENRICHED, HOUR, HOUR_PARTS, PARTITION, RAW, REJECTED, SUPPRESSED

EXAMPLE = {
    "timestamp": "2021-07-12 12:01:58.732726",
    "user_id": "35",
    "pixel_id": "wjgao4w1oi",
    "click_id": "a5cf179b9c9d483abf6d424d44a293be",
    "insertion_timestamp": "2021-07-12 12:01:58.732754",
    "event_name": "Search",
    "user_ip": "111.33.64.227",
    "additional_data": {"time_on_data": 79, "percent_viewed": 39.7, "product_id": 557246, "price": 417.97},
}
TABLES = {"enriched": ENRICHED, "rejected": REJECTED, "suppressed": SUPPRESSED, "raw": RAW}
ARRIVAL = datetime(2021, 7, 12, 12, 2, 3, 456000, UTC)


def event(**changes: Any) -> dict[str, Any]:
    """Return a valid event with fields changed, those of additional_data by their own names; `...` leaves one out."""
    changed = {**EXAMPLE, "additional_data": dict(EXAMPLE["additional_data"])}  # type: ignore[call-overload]
    for name, value in changes.items():
        place = changed["additional_data"] if name in EXAMPLE["additional_data"] else changed  # type: ignore[operator]
        place[name] = value
        if value is ...:
            del place[name]
    return changed


def payload(**changes: Any) -> bytes:
    """Return it as the bytes a client sends."""
    return json.dumps(event(**changes)).encode()


def arrived(payloads: Sequence[bytes], arrival: datetime = ARRIVAL, shard: str = "shardId-000000000000") -> Arrived:
    """Return records that came in one after the other, with sequence numbers from 1."""
    moments = pa.array([np.datetime64(arrival.replace(tzinfo=None), "us")] * len(payloads), pa.timestamp("us"))
    numbers = [str(number) for number in range(1, len(payloads) + 1)]
    return Arrived(
        pa.array(payloads, pa.binary()),
        origin(moments.cast(pa.timestamp("us", "UTC")), [shard] * len(payloads), numbers),
    )


def stored(columns: Mapping[str, pa.Array]) -> dict[str, pa.Table]:
    """Read slices back: by table its rows, each with the hour that it is in."""
    hours = [[text and text[HOUR_PARTS[c.name]] for text in columns[HOUR.name].to_pylist()] for c in PARTITION]
    found = {}
    for table, schema in TABLES.items():
        of_table = [pa.schema([*schema, *PARTITION]).empty_table()]
        for number, file in enumerate(columns[table].to_pylist() if table in columns else []):
            if file is not None:
                rows = pq.read_table(BytesIO(file)).cast(schema)
                where = [pa.repeat(hour[number], rows.num_rows) for hour in hours]
                of_table.append(pa.Table.from_arrays([*rows.columns, *where], schema=of_table[0].schema))
        found[table] = pa.concat_tables(of_table)
    return found


def offered(columns: Mapping[str, pa.Array]) -> list[dict[str, Any]]:
    """Return the offers among slices."""
    return [json.loads(offer) for offer in columns["offer"].to_pylist() if offer is not None]
