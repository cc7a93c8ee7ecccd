"""A batch of records becomes rows of the lake, offers and last accesses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickstream.batch import Arrived, first, moments
from clickstream.place import Place, public_address
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment
from tests import oracle
from tests.events import ARRIVAL, arrived, offered, payload, stored

CHINA = Place("CN", "Shanxi", "Taiyuan")
PLACES = {"111.33.64.227": CHINA, "8.8.8.8": Place("US"), "2001:4860::1": Place("US", "California")}
RECORDS = {
    "111.33.64.227": {
        "country": {"iso_code": "CN"},
        "subdivisions": [{"names": {"en": "Shanxi"}}],
        "city": {"names": {"en": "Taiyuan"}},
    },
    "8.8.8.8": {"country": {"iso_code": "US"}},
    "2001:4860::1": {"country": {"iso_code": "US"}, "subdivisions": [{"names": {"en": "California"}}]},
}
NAMES = {"35": "Ada Lovelace", "7": "Ōe Kenzaburō"}


def process(shared: InMemoryShared | None = None, geo: InMemoryGeo | None = None, *, archive: bool = True) -> Process:
    shared = shared if shared is not None else InMemoryShared(NAMES)
    answers = LayeredAnswers(PlaceMemory(1000), Memory(1000), shared, geo or InMemoryGeo(PLACES), Background())
    return Process(enrichment(answers, shared), archive=archive, offers=True)


def rows(records: Arrived, run: Process | None = None) -> dict[str, list[dict[str, object]]]:
    return {table: some.to_pylist() for table, some in stored((run or process())(records)).items()}


def test_a_batch_keeps_its_order_and_turns_every_record_into_exactly_one_thing() -> None:
    out = rows(arrived([payload(), b"{", payload(user_id="7"), b""]))

    assert [(row["user_id"], row["sequence_number"]) for row in out["enriched"]] == [("35", "1"), ("7", "3")]
    assert [(row["reason"], row["sequence_number"]) for row in out["rejected"]] == [
        ("malformed_json", "2"),
        ("empty", "4"),
    ]
    assert [row["sequence_number"] for row in out["raw"]] == ["1", "2", "3", "4"]


def test_a_click_that_repeats_another_is_kept_apart_and_earns_no_offer() -> None:
    view = payload(event_name="ViewContent", percent_viewed=61)
    records = arrived([view, b"{", view, payload(), view])
    written = pa.array([f"shardId-000000000000 {number}" for number in "12145"])
    shared = InMemoryShared(NAMES)

    columns = process(shared)(replace(records, first=first(records.origin, written)))

    out = {table: some.to_pylist() for table, some in stored(columns).items()}
    assert {table: [row["sequence_number"] for row in some] for table, some in out.items()} == {
        "enriched": ["1", "4", "5"],
        "rejected": ["2"],
        "suppressed": ["3"],
        "raw": ["1", "2", "3", "4", "5"],
    }
    (repeated,) = out["suppressed"]
    assert (repeated["first_shard_id"], repeated["first_sequence_number"]) == ("shardId-000000000000", "1")
    assert (repeated["city"], repeated["name"]) == ("Taiyuan", "Ada Lovelace")
    assert len(offered(columns)) == 2


def test_an_event_is_placed_and_named() -> None:
    (row,) = rows(arrived([payload()]))["enriched"]

    assert (row["country"], row["region"], row["city"], row["geo_status"]) == ("CN", "Shanxi", "Taiyuan", "found")
    assert (row["name"], row["name_status"]) == ("Ada Lovelace", "found")


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "::1", "224.0.0.1", "::ffff:10.0.0.1", "192.0.2.1"])
def test_an_address_that_is_not_public_is_unknown_and_nobody_is_asked(address: str) -> None:
    geo = InMemoryGeo(PLACES)

    (row,) = rows(arrived([payload(user_ip=address)]), process(geo=geo))["enriched"]

    assert (row["country"], row["geo_status"]) == (None, "unknown")
    assert geo.calls == []


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_an_address_is_public_as_the_registries_of_iana_say(address: IPv4Address | IPv6Address) -> None:
    whole = getattr(address, "ipv4_mapped", None) or address

    assert public_address(str(address)) == (str(whole) if whole.is_global and not whole.is_multicast else None)


def test_an_ipv4_address_written_as_ipv6_is_the_ipv4_address() -> None:
    (row,) = rows(arrived([payload(user_ip="::ffff:8.8.8.8")]))["enriched"]

    assert (row["country"], row["user_ip"]) == ("US", "::ffff:8.8.8.8")


def test_the_payload_of_events_is_kept_only_in_the_archive() -> None:
    records = arrived([payload(), b"{"])

    assert [row["payload"] for row in rows(records)["raw"]] == [payload(), b"{"]
    assert "raw" not in process(archive=False)(records).slices
    assert [row["payload"] for row in rows(records, process(archive=False))["rejected"]] == [b"{"]


@pytest.mark.parametrize(
    ("name", "viewed", "is_offer"),
    [("ViewContent", 60.1, True), ("ViewContent", 60, False), ("ViewContent", 100, True), ("Purchase", 99, False)],
)
def test_an_offer_is_earned_by_viewing_more_than_sixty_percent(name: str, viewed: float, is_offer: bool) -> None:
    offers = offered(process()(arrived([payload(event_name=name, percent_viewed=viewed)])))

    assert len(offers) == is_offer


def test_the_partition_is_the_hour_of_arrival_in_utc_whatever_the_client_says() -> None:
    arrival = datetime(2021, 1, 2, 3, 59, 59, 999000, UTC)

    (row,) = rows(arrived([payload(timestamp="3000-01-01 00:00:00")], arrival))["enriched"]

    assert (row["year"], row["month"], row["day"], row["hour"]) == ("2021", "01", "02", "03")


def test_a_batch_of_nothing_but_rejected_records_asks_nobody() -> None:
    shared = InMemoryShared()

    rows(arrived([b"{", b""]), process(shared))

    assert shared.trips == 0


def test_last_access_is_the_newest_in_whatever_order_events_come() -> None:
    late, early = payload(timestamp="2021-07-12 12:00:02"), payload(timestamp="2021-07-12 12:00:01", user_ip="8.8.8.8")
    for order in ([late, early], [early, late]):
        shared = InMemoryShared(NAMES)

        rows(arrived(order), process(shared))

        assert shared.user("35")["last_access"] == "2021-07-12 12:00:02.000000"
        assert shared.user("35")["location"] == "Taiyuan, Shanxi, CN"


def test_a_client_in_the_year_3000_does_not_freeze_its_last_access() -> None:
    shared = InMemoryShared(NAMES)

    rows(arrived([payload(timestamp="3000-01-01 00:00:00")]), process(shared))

    assert shared.user("35")["last_access"] == oracle.spelled_moment(ARRIVAL + timedelta(minutes=5))


def test_while_redis_is_down_events_go_on_unnamed_and_an_mmdb_still_places_them() -> None:
    shared = InMemoryShared(NAMES)
    shared.down = True

    (row,) = rows(arrived([payload()]), process(shared))["enriched"]

    assert (row["name_status"], row["geo_status"], row["city"]) == ("unavailable", "found", "Taiyuan")


mostly_events = st.one_of(
    st.builds(
        payload,
        user_id=st.sampled_from(["35", "7", "nobody"]),
        user_ip=st.sampled_from([*PLACES, "10.0.0.1", "9.9.9.9", "::ffff:8.8.8.8", "2001:4860:0:0::1"]),
        event_name=st.sampled_from(["Search", "ViewContent", "Purchase", "Sleep"]),
        percent_viewed=st.sampled_from([0, 60, 60.5, 99.9, 101]),
        timestamp=st.datetimes(max_value=datetime(9999, 1, 1)).map(lambda m: m.isoformat(" ")),
    ),
    st.binary(max_size=5),
)


@given(st.lists(st.builds(datetime.replace, st.datetimes(), tzinfo=st.sampled_from([None, UTC]))))
def test_moments_become_timestamps_whether_they_say_that_they_are_in_utc_or_not(in_utc: list[datetime]) -> None:
    assert moments(in_utc).to_pylist() == [moment.replace(tzinfo=UTC) for moment in in_utc]


@given(st.lists(st.lists(mostly_events, max_size=8), min_size=1, max_size=3))
def test_whatever_comes_in_comes_out_as_the_oracle_says(batches: list[list[bytes]]) -> None:
    shared = InMemoryShared(NAMES)
    run = process(shared)
    enriched, rejected, offers, records = [], [], [], []
    for number, batch in enumerate(batches):
        columns = run(arrived(batch, shard=f"shard-{number}"))
        tables = stored(columns)
        enriched += tables["enriched"].to_pylist()
        rejected += tables["rejected"].to_pylist()
        offers += offered(columns)
        records += [
            oracle.Arrived(payload, ARRIVAL, f"shard-{number}", str(place))
            for place, payload in enumerate(batch, start=1)
        ]

    expected = oracle.expected(records, RECORDS.get, NAMES)
    users = {u: (k["last_access"], k["location"]) for u, k in shared.users.items() if "last_access" in k}
    assert oracle.differences(expected, enriched, rejected, offers, users) == []
