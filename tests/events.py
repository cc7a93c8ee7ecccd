"""Events for tests: a valid one, of which a test changes what it is about, and what became of them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.batch import Arrived, origin
from clickstream.packs import Part
from clickstream.schema import ENRICHED, HOUR_PARTS, PARTITION, RAW, REJECTED, SUPPRESSED
from clickstream.slices import Outcomes

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


def stored(outcomes: Outcomes) -> dict[str, pa.Table]:
    """Read slices back: by table its rows, each with the hour that it is in."""
    found = {}
    for table, schema in TABLES.items():
        of_table = [pa.schema([*schema, *PARTITION]).empty_table()]
        for hour, file in zip(outcomes.hours, outcomes.slices.get(table, ()), strict=False):
            if file is not None:
                rows = pq.read_table(pa.py_buffer(file)).cast(schema)
                where = [pa.repeat(hour[HOUR_PARTS[column.name]], rows.num_rows) for column in PARTITION]
                of_table.append(pa.Table.from_arrays([*rows.columns, *where], schema=of_table[0].schema))
        found[table] = pa.concat_tables(of_table)
    return found


def together(parts: Sequence[Part]) -> pa.Buffer:
    """Return a pack's parts as they are written, one after the other."""
    return pa.py_buffer(b"".join(map(bytes, parts)))


def offered(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return the offers."""
    return [json.loads(offer) for offer in outcomes.offers["offer"].to_pylist()] if outcomes.offers else []
