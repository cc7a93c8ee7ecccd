"""When records leave: at a steady rate, in batches, and once more after a pause."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from generator.records import Record

T = TypeVar("T")

NAP: Final = 0.005  # seconds; sleeping for less costs more than it waits
PATIENCE: Final = 1.0  # seconds of delay that are caught up; what is lost beyond that stays lost


def paced(
    items: Iterable[T],
    per_second: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """Let items through at a steady rate, each at most 5 ms early.

    After a delay of up to a second the items due meanwhile leave at once, so the rate holds over time; after a longer
    one only the last second's do, so that an hour's pause does not end in a flood.
    """
    if not per_second > 0:
        raise ValueError(f"a rate is more than 0 a second, not {per_second}")
    due = clock()
    for item in items:
        now = clock()
        if due - now > NAP:
            sleep(due - now)
        yield item
        due = max(due, now - PATIENCE) + 1 / per_second


def batches(
    records: Iterable[Record],
    *,
    most: int,
    most_bytes: int,
    linger: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Record]]:
    """Group records in order, at most `most` of them and `most_bytes` of payloads and keys together.

    A batch leaves before it is full once `linger` seconds have passed since the last one was dealt with, so that a
    slow source is passed on record by record and a fast one in full batches. One record over the limit goes alone.
    """
    batch: list[Record] = []
    size = 0
    since = clock()
    for record in records:
        weight = size_of(record)
        if batch and size + weight > most_bytes:
            yield batch
            batch, size, since = [], 0, clock()
        batch.append(record)
        size += weight
        if len(batch) >= most or clock() - since >= linger:
            yield batch
            batch, size, since = [], 0, clock()
    if batch:
        yield batch


def size_of(record: Record) -> int:
    """Count the bytes as Kinesis does: those of the payload and those of the key."""
    return len(record.payload) + len(record.partition_key.encode())
