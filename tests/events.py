"""Events for tests: a valid one, of which a test changes what it is about."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from clickstream.batch import Arrived, origin

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
