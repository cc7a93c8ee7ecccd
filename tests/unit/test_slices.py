"""Slices hold what the records of a batch come to, table by table and hour by hour."""

import itertools
from dataclasses import replace
from datetime import timedelta
from random import Random

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clickstream.address import HiddenAddresses
from clickstream.batch import Arrived, first, origin
from clickstream.packs import unpack
from clickstream.schema import HOUR_PARTS, OFFER, OUTCOME, PARTITION
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment
from generator.malformed import mixed
from generator.shoppers import Shoppers
from tests.events import ARRIVAL, TABLES, arrived, offered, payload, stored, together

HASH = HiddenAddresses("hash", b"0123456789abcdef")


def process(*, archive: bool = True, offers: bool = True, hide: HiddenAddresses | None = None) -> Process:
    shared = InMemoryShared({"35": "Ada Lovelace"})
    answers = LayeredAnswers(PlaceMemory(1000), Memory(1000), shared, InMemoryGeo({}), Background())
    return Process(enrichment(answers, shared), archive=archive, offers=offers, hide=hide)


def records(count: int, hours: float, bad: float, *, in_order: bool = False) -> Arrived:
    """Return records spread evenly over some hours, in no order unless it is asked for."""
    payloads = [one.payload for one in itertools.islice(mixed(Shoppers(1).records(), bad, Random(1)), count)]
    moments = [ARRIVAL + timedelta(hours=hours) * number / count for number in range(count)]
    if not in_order:
        Random(2).shuffle(moments)
    numbers = [str(number) for number in range(count)]
    return Arrived(
        pa.array(payloads, pa.binary()), origin(pa.array(moments, pa.timestamp("us", "UTC")), ["s-0"] * count, numbers)
    )


@pytest.mark.parametrize("hide", [None, HASH], ids=["kept", "hidden"])
@pytest.mark.parametrize("in_order", [False, True], ids=["mixed", "in order"])
@pytest.mark.parametrize("hours", [0.1, 3, 40])
def test_slices_hold_by_table_and_hour_the_rows_that_each_record_alone_comes_to(
    hours: float, in_order: bool, hide: HiddenAddresses | None
) -> None:
    arrived = records(150, hours, 0.2, in_order=in_order)

    run = process(hide=hide)
    alone = [
        stored(run(Arrived(arrived.payload.slice(n, 1), {k: v.slice(n, 1) for k, v in arrived.origin.items()})))
        for n in range(len(arrived.payload))
    ]
    found = process(hide=hide)(arrived)

    hours = ["/".join(hour[HOUR_PARTS[column.name]] for column in PARTITION) for hour in found.hours]
    for table in ("enriched", "rejected", "raw"):
        wanted = pa.concat_tables(one[table] for one in alone)
        for hour, file in zip(hours, found.slices[table], strict=True):
            of_hour = wanted.filter(pc.equal(_hour(wanted), hour)).select(TABLES[table].names)
            assert (file is None) == (of_hour.num_rows == 0)
            if file is not None:
                assert pq.read_table(pa.py_buffer(file)).to_pylist() == _without_zone(of_hour).to_pylist()
    assert len(hours) == len(set(hours)) == len(pc.unique(_hour(pa.concat_tables(one["raw"] for one in alone))))


def test_what_is_switched_off_is_not_there() -> None:
    these = records(50, 1, 0.1)
    repeated = first(these.origin, pa.array(["s-0 0"] * 50))
    for archive, offers, dedup in itertools.product([True, False], repeat=3):
        found = process(archive=archive, offers=offers)(replace(these, first=repeated) if dedup else these)

        left_out = {"raw": not archive, "suppressed": not dedup}
        assert found.slices.keys() == {name for name in TABLES if not left_out.get(name)}
        assert (found.offers is None) == (not offers)


@pytest.mark.parametrize("hours", [0.1, 3])
def test_a_pack_holds_all_that_becomes_of_a_batch(hours: float) -> None:
    found = process()(records(150, hours, 0.2))
    assert found.offers is not None

    goes_to, its_key, content = unpack(together(found.packed()), [column.type for column in OUTCOME])

    assert list(zip(goes_to.to_pylist(), its_key.to_pylist(), content.to_pylist(), strict=True)) == [
        *(
            (table, hour, bytes(one))
            for table, of_hours in found.slices.items()
            for hour, one in zip(found.hours, of_hours, strict=True)
            if one is not None
        ),
        *(
            ("offers", user_id, offer)
            for user_id, offer in zip(*(found.offers[name].to_pylist() for name in ("user_id", "offer")), strict=True)
        ),
    ]


def test_a_pack_of_nothing_has_no_rows() -> None:
    nothing = arrived([])

    pack = together(process()(nothing).packed())
    assert [len(column) for column in unpack(pack, [c.type for c in OUTCOME])] == [0, 0, 0]


def test_who_views_much_of_a_page_gets_an_offer() -> None:
    view = payload(event_name="ViewContent", percent_viewed=61, user_id="7")
    found = process()(arrived([payload(), b"{", view, payload()]))

    assert found.offers is not None
    assert found.offers["user_id"].to_pylist() == ["7"]
    assert offered(found) == [
        {
            "timestamp": "2021-07-12 12:01:58.732726",
            "event_name": "ViewContent",
            "user_id": "7",
            "click_id": "a5cf179b9c9d483abf6d424d44a293be",
            "product_id": 557246,
            "price": 417.97,
            "percent_viewed": 61.0,
            "offer_id": "827a57d8f02bd37fce1ae976ae3643a5",
        }
    ]


def test_an_offer_is_json_whatever_is_in_it() -> None:
    hostile = '"quoted", back\\slash, \n, \x00, \x1f, \x7f, ü and \u2028'
    numbers = [0.0, 0.1, 1e-7, 5e-324, 10, 417.97, 1e15, 1e16, 1e22, 1.7976931348623157e308]
    views = [
        payload(event_name="ViewContent", percent_viewed=61.5, user_id=user_id, click_id=f"{user_id}-c", price=price)
        for user_id in ("7", hostile)
        for price in numbers
    ]

    found = offered(process()(arrived(views)))

    assert [(one["user_id"], one["click_id"], one["price"]) for one in found] == [
        (user_id, f"{user_id}-c", price) for user_id in ("7", hostile) for price in numbers
    ]
    assert all(isinstance(one["price"], float) for one in found)
    assert [*found[0]] == OFFER.names


@pytest.mark.parametrize("hours", [0.1, 3])
def test_a_slice_has_no_dictionary_and_only_times_and_sequence_numbers_in_its_footer(hours: float) -> None:
    found = process()(records(100, hours, 0.1))

    for table in ("enriched", "rejected", "raw"):
        row_group = pq.ParquetFile(pa.py_buffer(found.slices[table][0])).metadata.row_group(0)
        columns = [row_group.column(number) for number in range(row_group.num_columns)]
        assert not any(column.has_dictionary_page for column in columns)
        times = [] if table != "enriched" else ["timestamp", "insertion_timestamp"]
        assert [column.path_in_schema for column in columns if column.is_stats_set] == [
            *times,
            "arrival_timestamp",
            "sequence_number",
        ]


def _hour(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*(rows[column.name] for column in PARTITION), "/")


def _without_zone(rows: pa.Table) -> pa.Table:
    return rows.cast(
        pa.schema([(c.name, pa.timestamp("us") if pa.types.is_timestamp(c.type) else c.type) for c in rows.schema])
    )
