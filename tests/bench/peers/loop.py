"""The Lambda way: a plain loop over batches of ten, with one call to Redis for each look-up and each last access.

Beside what the job does it remembers nothing and commits nothing: what it has not written is lost when it dies.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import redis

from clickstream.decode import Rejected, decode_slowly, is_ip, is_utc
from clickstream.event import Event
from clickstream.place import Place, public_address
from tests.bench.peers.given import Enriched, Given, Rejection, Tables, access, end, last_accesses, ready, records, say

BATCH = 10
SAID_EVERY = 1000  # records
USUAL_BYTES = 1024
decode_place: Callable[[bytes], Place | None] = msgspec.json.Decoder(Place | None).decode


def main() -> None:
    """Process the share of one process."""
    given = Given.read()
    door, geo, tables = given.door(), given.geo(), Tables(given)
    client: Any = redis.Redis.from_url(given.redis)

    def place_of(address: str) -> Place | None:
        public = public_address(address)
        if public is None:
            return None
        known = client.get(f"ip:{public}")
        if known is not None:
            return decode_place(known)
        place = geo.find([public])[public]
        client.set(f"ip:{public}", msgspec.json.encode(place), ex=86_400)
        return place

    def name_of(user_id: str) -> str | None:
        name: bytes | None = client.hget(f"user:{user_id}", "name")
        return name.decode() if name else None

    client.ping()
    ready()
    done = 0
    for file in given.files:
        for batch in records(file, BATCH):
            enriched, rejected = [], []
            for record in batch:
                event = read(record.payload)
                if isinstance(event, Rejected):
                    rejected.append(Rejection(event, record))
                else:
                    row = Enriched(event, place_of(event.user_ip), name_of(event.user_id), record)
                    door.keep_newest(last_accesses([access(row)]))
                    enriched.append(row)
            for rows in (batch, enriched, rejected):
                tables.add(rows)
            done += len(batch)
            if done % SAID_EVERY == 0:
                say(done)
    tables.close()
    end()


def read(payload: bytes) -> Event | Rejected:
    """Decode with the standard library's JSON; what is unusual or wrong, and why, the job's own decoder says."""
    try:
        if len(payload) <= USUAL_BYTES and b"\\" not in payload:
            event = msgspec.convert(json.loads(payload.decode()), Event)
            numbers = event.additional_data
            finite = math.isfinite(numbers.time_on_data) and math.isfinite(numbers.price)
            if finite and is_utc(event.timestamp) and is_utc(event.insertion_timestamp) and is_ip(event.user_ip):
                return event
    except (ValueError, OverflowError, RecursionError):  # msgspec's own errors are ValueErrors
        pass
    return decode_slowly(payload)


if __name__ == "__main__":
    main()
