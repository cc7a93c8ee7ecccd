"""Slices hold what a batch comes to row for row, table by table and hour by hour."""

import itertools
from datetime import timedelta
from io import BytesIO
from random import Random

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clickstream.address import HiddenAddresses
from clickstream.batch import Arrived, origin
from clickstream.schema import ENRICHED, OFFER, PARTITION, RAW, REJECTED, sliced
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment
from generator.malformed import mixed
from generator.shoppers import Shoppers
from tests.events import ARRIVAL, arrived, payload

Columns = dict[str, pa.Array]
TABLES = {"enriched": ENRICHED, "rejected": REJECTED, "raw": RAW}
HASH = HiddenAddresses("hash", b"0123456789abcdef")


def process(*, archive: bool = True, offers: bool = True, hide: HiddenAddresses | None = None) -> Process:
    shared = InMemoryShared({"35": "Ada Lovelace"})
    answers = LayeredAnswers(PlaceMemory(1000), Memory(1000), shared, InMemoryGeo({}), Background())
    return Process(enrichment(answers, shared), archive=archive, offers=offers, hide=hide)


def records(count: int, hours: float, bad: float) -> Arrived:
    """Return records spread evenly over some hours, and a little out of order."""
    payloads = [one.payload for one in itertools.islice(mixed(Shoppers(1).records(), bad, Random(1)), count)]
    moments = [ARRIVAL + timedelta(hours=hours) * number / count for number in range(count)]
    Random(2).shuffle(moments)
    numbers = [str(number) for number in range(count)]
    return Arrived(
        pa.array(payloads, pa.binary()), origin(pa.array(moments, pa.timestamp("us", "UTC")), ["s-0"] * count, numbers)
    )


@pytest.mark.parametrize("hide", [None, HASH], ids=["kept", "hidden"])
@pytest.mark.parametrize("hours", [0.1, 3, 40])
def test_slices_hold_the_rows_of_their_table_and_hour(hours: float, hide: HiddenAddresses | None) -> None:
    arrived = records(600, hours, 0.2)

    rows = pa.table(process(hide=hide)(arrived))
    found = process(hide=hide).slices(arrived)

    is_event = pc.is_null(rows["reason"])
    wanted = {"enriched": rows.filter(is_event), "rejected": rows.filter(pc.invert(is_event)), "raw": rows}
    for table, schema in TABLES.items():
        for hour, file in zip(_hours(found), found[table].to_pylist(), strict=False):
            of_hour = wanted[table].filter(pc.equal(_hour(wanted[table]), hour)).select(schema.names)
            assert (file is None) == (of_hour.num_rows == 0)
            if file is not None:
                assert pq.read_table(BytesIO(file)).to_pylist() == _without_zone(of_hour).to_pylist()
        assert len(_hours(found)) == len(pc.unique(_hour(rows)))


def test_slices_come_in_the_columns_of_the_schema_with_a_row_for_each_record() -> None:
    for archive, offers in itertools.product([True, False], repeat=2):
        found = process(archive=archive, offers=offers).slices(records(50, 1, 0.1))

        table = pa.table(found)
        assert table.schema == sliced(raw=archive, offers=offers)
        assert table.num_rows == 50


def test_an_offer_is_in_the_row_of_its_record() -> None:
    view = payload(event_name="ViewContent", percent_viewed=61, user_id="7")
    found = process().slices(arrived([payload(), b"{", view, payload()]))

    row_for_row = process()(arrived([payload(), b"{", view, payload()]))
    assert [one is None for one in found["offer_offer_id"].to_pylist()] == [True, True, False, True]
    assert found["offer_offer_id"] == row_for_row["offer_id"]
    assert {name: found[f"offer_{name}"][2].as_py() for name in OFFER.names if name != "offer_id"} == {
        "timestamp": "2021-07-12 12:01:58.732726",
        "event_name": "ViewContent",
        "user_id": "7",
        "click_id": "a5cf179b9c9d483abf6d424d44a293be",
        "product_id": 557246,
        "price": 417.97,
        "percent_viewed": 61.0,
    }


def test_one_record_alone_has_room_for_its_slices() -> None:
    for one in (payload(), b"{"):
        table = pa.table(process().slices(arrived([one])))
        assert table.num_rows == 1
        assert (table["enriched"][0].as_py() is None) == (one == b"{")


def test_a_slice_has_no_dictionary_and_no_value_of_a_payload_in_its_footer() -> None:
    found = process().slices(records(100, 0.1, 0.1))

    for table in TABLES:
        row_group = pq.ParquetFile(BytesIO(found[table][0].as_py())).metadata.row_group(0)
        columns = [row_group.column(number) for number in range(row_group.num_columns)]
        assert not any(column.has_dictionary_page for column in columns)
        assert [column.path_in_schema for column in columns if not column.is_stats_set] == (
            ["payload"] if table != "enriched" else []
        )


def _hours(columns: Columns) -> list[str]:
    texts = zip(*(columns[column.name].to_pylist() for column in PARTITION), strict=True)
    return ["/".join(parts) for parts in texts if parts[0] is not None]


def _hour(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*(rows[column.name] for column in PARTITION), "/")


def _without_zone(rows: pa.Table) -> pa.Table:
    return rows.cast(
        pa.schema([(c.name, pa.timestamp("us") if pa.types.is_timestamp(c.type) else c.type) for c in rows.schema])
    )
