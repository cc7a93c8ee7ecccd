"""A batch of records as columns: what arrived, the events among them, and what became of each."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream.decode import Rejected, decode_all
from clickstream.event import Event
from clickstream.offer import HIGH_INTENT_EVENT, HIGH_INTENT_PERCENT
from clickstream.schema import EVENT, FIRST, ORIGIN, REASON, UTC_MICROS

_HOUR_MICROS: Final = 3_600_000_000
_JSON: Final = msgspec.json.Encoder()

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records as the stream gave them: untouched bytes, and where each was accepted (see `schema.ORIGIN`).

    With de-duplication also which record each repeats (see `schema.FIRST`).
    """

    payload: pa.Array
    origin: Mapping[str, pa.Array]
    first: Mapping[str, pa.Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of a batch in order, as columns; enrichment adds some."""

    origin: Mapping[str, pa.Array]
    first: Mapping[str, pa.Array] = field(default_factory=dict)
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    _encoded: dict[str, tuple[list[str], pa.Array]] = field(default_factory=dict, repr=False)  # see `distinct`

    @classmethod
    def of(
        cls, events: Sequence[Event], origin: Mapping[str, pa.Array], first: Mapping[str, pa.Array] | None = None
    ) -> "Batch":
        """Turn events into columns, one for each field of the description."""
        return cls(origin, first or {}, {name: read(events) for name, read in _READERS.items()})

    def __len__(self) -> int:
        return len(self.origin["arrival_timestamp"])

    @property
    def repeated(self) -> Mask:
        """Say of each event whether it repeats an earlier one; none does unless de-duplication is on."""
        firsts = list(self.first.values())
        return np.asarray(firsts[0].is_valid()) if firsts else np.zeros(len(self), bool)

    def distinct(self, name: str) -> tuple[list[str], pa.Array]:
        """Return a column's distinct values, and for every row the place of its value among them."""
        if name not in self._encoded:
            encoded = self.columns[name].dictionary_encode()
            self._encoded[name] = objects(encoded.dictionary), encoded.indices
        return self._encoded[name]

    def adding(self, **columns: pa.Array) -> "Batch":
        """Return the batch with these columns as well."""
        kept = {name: encoded for name, encoded in self._encoded.items() if name not in columns}
        return replace(self, columns={**self.columns, **columns}, _encoded=kept)


def read(arrived: Arrived) -> tuple[Batch, dict[int, Rejected]]:
    """Decode every record: the batch of events, and for each other row why it is none."""
    events, rejected = decode_all(objects(arrived.payload))
    if not rejected:
        return Batch.of(events, arrived.origin, arrived.first), rejected
    kept = pa.array(~where(rejected, len(arrived.payload)))
    of_events = (
        {name: column.filter(kept) for name, column in some.items()} for some in (arrived.origin, arrived.first)
    )
    return Batch.of(events, *of_events), rejected


def click_ids(payload: pa.Array) -> pa.Array:
    """Return the click_id of each record that is an event, and null for what will be rejected."""
    events, rejected = decode_all(objects(payload))
    ids = pa.array([event.click_id for event in events], pa.string())
    bad = where(rejected, len(payload))
    return ids.take(pa.array(np.cumsum(~bad) - 1, mask=bad)) if rejected else ids


def where(rows: Collection[int], count: int) -> Mask:
    """Return a mask of so many rows that is true in these."""
    mask = np.zeros(count, bool)
    mask[list(rows)] = True
    return mask


def reasons(rejected: Mapping[int, Rejected]) -> dict[str, pa.Array]:
    """Lay out why records were rejected, in the columns of `schema.REASON`."""
    return {c.name: pa.array([getattr(one, c.name) for one in rejected.values()], c.type) for c in REASON}


def earned(batch: Batch) -> Mask:
    """Say of each event whether it earns its user an offer: `offer.earns`, for a batch; a repetition does not."""
    viewed = pc.struct_field(
        batch.columns["additional_data"], batch.columns["additional_data"].type.get_field_index("percent_viewed")
    )
    is_view = pc.equal(batch.columns["event_name"], HIGH_INTENT_EVENT)
    return np.asarray(pc.and_(is_view, pc.greater(viewed, HIGH_INTENT_PERCENT))) & ~batch.repeated


def origin(arrival: pa.Array, shard_ids: Iterable[str], sequence_numbers: Iterable[str]) -> dict[str, pa.Array]:
    """Lay out where records were accepted, in the columns of `schema.ORIGIN`; `arrival` is timestamps in UTC."""
    texts = (
        text if isinstance(text, pa.Array) else pa.array(text, pa.string()) for text in (shard_ids, sequence_numbers)
    )
    return {column.name: value.cast(column.type) for column, value in zip(ORIGIN, (arrival, *texts), strict=True)}


def first(origin: Mapping[str, pa.Array], written: pa.Array | None = None) -> dict[str, pa.Array]:
    """Lay out which record each one repeats in the columns of `schema.FIRST`, null where that is the record itself.

    `written` says which one was the first, as `<shard_id> <sequence_number>`; without it nothing is known of that.
    """
    if written is None:
        return {}
    own = pc.binary_join_element_wise(origin["shard_id"], origin["sequence_number"], " ")
    parts = pc.split_pattern(pc.if_else(pc.equal(written, own), None, written), " ", max_splits=1)
    return {column.name: pc.list_element(parts, number) for number, column in enumerate(FIRST)}


def objects(column: pa.Array) -> list[Any]:
    """Return a column's values as Python's own, ten times as fast as `to_pylist` does."""
    return list(column.to_numpy(zero_copy_only=False).tolist())


def moments(in_utc: Sequence[datetime]) -> pa.Array:
    """Return moments in UTC, with or without a zone that says so, as timestamps, by way of text.

    Arrow asks each for its offset, which takes three times as long as writing all of them and reading that.
    """
    lines = _JSON.encode_lines(in_utc).replace(b"Z", b"")  # "2021-07-12T12:01:58.732726" and a newline each
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n")) + 1 - 3 * np.arange(1, len(in_utc) + 1)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    texts = pa.py_buffer(offsets), pa.py_buffer(lines.translate(None, b'"\n'))
    return pa.StringArray.from_buffers(len(in_utc), *texts).cast(pa.timestamp("us")).cast(UTC_MICROS)


def _reader(column: pa.Field, path: str = "event") -> Callable[[Sequence[Event]], pa.Array]:
    """Write the function that makes a column of events."""
    path = f"{path}.{column.name}"
    if pa.types.is_struct(column.type):
        inside = [_reader(inner, path) for inner in column.type]
        fields = list(column.type)
        return lambda events: pa.StructArray.from_arrays([read(events) for read in inside], fields=fields)
    # Python reads a slot half as fast by a name that it gets to know only then, as with getattr.
    values = eval(f"lambda events: [{path} for event in events]")  # noqa: S307  # names of our own description
    if pa.types.is_timestamp(column.type):
        return lambda events: moments(values(events))
    return lambda events: pa.array(values(events), column.type)


_READERS: Final = {column.name: _reader(column) for column in EVENT}


def hours_of_arrival(origin: Mapping[str, pa.Array]) -> Numbers:
    """Return the hour in which each record arrived, in hours since 1970 (UTC)."""
    return np.asarray(origin["arrival_timestamp"].cast(pa.int64())) // _HOUR_MICROS


def partition(hours: Numbers) -> list[str]:
    """Write hours as they are in the keys of slices: 2021-07-12T09."""
    return [str(hour) for hour in hours.astype("datetime64[h]")]
