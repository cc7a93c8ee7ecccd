"""A batch as slices: the rows of each table and hour in Parquet, ready for the sinks, which only stitch them together.

pyarrow writes a record's rows in 2 µs, where the JVM needs 15, and nothing but bytes crosses back. The sinks' side of
it is `ParquetSlicesWriter` in flink_app/src.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.batch import (
    Arrived,
    Batch,
    Mask,
    Numbers,
    hours_of_arrival,
    objects,
    partition,
    reasons,
    where,
)
from clickstream.decode import Rejected
from clickstream.offer import id_of_click
from clickstream.packs import Part, packed
from clickstream.schema import ENRICHED, OFFER, RAW, REJECTED, SUPPRESSED

Columns = dict[str, pa.Array]

_NARROWED_BY: Final = ("timestamp", "insertion_timestamp", "arrival_timestamp", "sequence_number")
"""Columns whose least and greatest value a reader is told, since they keep the order of arrival: in all others a row
group of some thousand clicks has about every value there is, and finding that out took a fifth of the writing."""
_PAGE_BYTES: Final = 128 << 10
"""Before compression. With pyarrow's 1 MiB a payload takes a tenth longer: that outgrows what a core has at hand."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What becomes of a batch: of each table and each of its hours a slice, or none, and the offers."""

    hours: Sequence[str]
    slices: Mapping[str, Sequence[Part | None]]  # by table, in the order of the hours
    offers: Columns | None  # `user_id` and `offer`, which is JSON

    def packed(self) -> list[Part]:
        """Return the parts of a pack of all of it, in the columns of `schema.OUTCOME`."""
        rows = [
            (table.encode(), hour.encode(), one)
            for table, of_hours in self.slices.items()
            for hour, one in zip(self.hours, of_hours, strict=True)
            if one is not None
        ]
        goes_to, its_key, content = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
        if self.offers is not None:
            goes_to.append(pa.repeat("offers", len(self.offers["offer"])))
            its_key.append(self.offers["user_id"])
            content.append(self.offers["offer"])
        return packed(goes_to, its_key, content)


def slices(
    arrived: Arrived,
    batch: Batch,
    rejected: Mapping[int, Rejected],
    *,
    archive: bool,
    offers: Mask | None,
    hide: Callable[[Columns], Columns] | None = None,
) -> Outcomes:
    """Lay out what became of a batch, and the offers, if it is told which events earn one."""
    bad = where(rejected, len(arrived.payload))
    hours = hours_of_arrival(arrived.origin)
    whole = {"payload": arrived.payload, **arrived.origin}
    these = {name: column.take(pa.array(rejected, pa.int64())) for name, column in whole.items()}
    events = {**batch.columns, **batch.origin, **batch.first}
    tables = {
        _ENRICHED: _only(~batch.repeated, events, hours[~bad]),
        _REJECTED: ({**these, **reasons(rejected)}, hours[bad]),
    }
    if batch.first:
        tables[_SUPPRESSED] = _only(batch.repeated, events, hours[~bad])
    if archive:
        tables[_RAW] = (whole, hours)
    distinct = np.unique(hours)
    sliced = {}
    for table, (rows, its_hours) in tables.items():
        sliced[table.name] = table.slices(rows if hide is None else hide(rows), its_hours, distinct)
    return Outcomes(partition(distinct), sliced, None if offers is None else _offers(batch, offers))


class _Table:
    """How a table's rows become slices: without dictionaries, since a column can have just one in all of its pages."""

    def __init__(self, name: str, schema: pa.Schema) -> None:
        self.name = name
        # Flink has never flagged times as UTC: docs/decisions/0002
        without_zone = [
            pa.field(c.name, pa.timestamp("us") if pa.types.is_timestamp(c.type) else c.type) for c in schema
        ]
        self._schema = pa.schema(without_zone)
        self._with_statistics = [name for name in schema.names if name in _NARROWED_BY]

    def slices(self, columns: Columns, hours: Numbers, distinct: Numbers) -> Sequence[Part | None]:
        """Return the rows of each distinct hour as Parquet, in order; None for an hour that has none."""
        rows = pa.table([_cast(columns[column.name], column.type) for column in self._schema], schema=self._schema)
        if len(distinct) == 1:
            return [self._slice(rows)]
        if (np.diff(hours) < 0).any():  # the job's batches have their hours in order
            order = np.argsort(hours, kind="stable")
            rows, hours = rows.take(pa.array(order)), hours[order]
        ends = np.searchsorted(hours, distinct, side="right").tolist()
        return [self._slice(rows.slice(start, end - start)) for start, end in pairwise([0, *ends])]

    def _slice(self, rows: pa.Table) -> pa.Buffer | None:
        if not rows.num_rows:
            return None
        file = pa.BufferOutputStream()
        pq.write_table(
            rows,
            file,
            compression="snappy",
            use_dictionary=False,
            write_statistics=self._with_statistics,
            data_page_size=_PAGE_BYTES,
            store_schema=False,  # Arrow's own; the stitched file has none, whatever the slices had
        )
        return file.getvalue()


_ENRICHED, _REJECTED, _RAW = _Table("enriched", ENRICHED), _Table("rejected", REJECTED), _Table("raw", RAW)
_SUPPRESSED = _Table("suppressed", SUPPRESSED)


def _only(these: Mask, columns: Columns, hours: Numbers) -> tuple[Columns, Numbers]:
    if these.all():
        return columns, hours
    return {name: column.filter(pa.array(these)) for name, column in columns.items()}, hours[these]


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Spare what is of that type the call, which would cost a small batch a twentieth of its time."""
    return values if values.type == kind else values.cast(kind)


def _offers(batch: Batch, earners: Mask) -> Columns:
    """Write the offers that these events have earned."""
    rows = pa.array(np.flatnonzero(earners))
    detail = batch.columns["additional_data"]
    columns = {**batch.columns, **dict(zip((c.name for c in detail.type), detail.flatten(), strict=True))}
    offered = {name: columns[name].take(rows) for name in OFFER.names if name in columns}
    offered["timestamp"] = offered["timestamp"].cast(pa.timestamp("us")).cast(pa.string())
    values = {name: objects(column) for name, column in offered.items()}
    values["offer_id"] = [*map(id_of_click, values["click_id"])]
    texts = [_JSON.encode(_Offer(*one)) for one in zip(*(values[name] for name in OFFER.names), strict=True)]
    return {"user_id": offered["user_id"], "offer": pa.array(texts, pa.binary())}


_JSON: Final = msgspec.json.Encoder()
_Offer: Final = msgspec.defstruct("_Offer", OFFER.names, gc=False)
