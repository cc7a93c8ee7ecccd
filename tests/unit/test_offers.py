import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli.offers import COLUMNS, Consumer, Offer, Seen, _is_aws, _start, as_columns, as_json, read_offer
from clickstream.offer import FIELDS
from connectors.kinesis_reader import Record
from connectors.positions import AtTimestamp, Latest, TrimHorizon

OFFER: dict[str, Any] = {
    "timestamp": "2021-07-12 12:01:58.732726",
    "event_name": "ViewContent",
    "percent_viewed": 87,
    "product_id": 557246,
    "price": 417.97,
    "user_id": "35",
    "click_id": "a5cf179b9c9d483abf6d424d44a293be",
    "offer_id": "11669fb6dd2a0f8aee40a4ffb2f25f31",
}


def offer(**changed: Any) -> bytes:
    return json.dumps(OFFER | changed).encode()


def record(data: bytes) -> Record:
    return Record(data, "shardId-000000000000", "49", datetime(2021, 7, 12, tzinfo=UTC))


def consumer(**options: Any) -> tuple[Consumer, list[str], list[str]]:
    shown: list[str] = []
    complaints: list[str] = []
    return Consumer(lambda one, _: shown.append(one.offer_id), complaints.append, **options), shown, complaints


def test_an_offer_is_read_with_its_types() -> None:
    found = read_offer(offer())

    assert found == Offer(**OFFER | {"timestamp": datetime(2021, 7, 12, 12, 1, 58, 732726), "percent_viewed": 87.0})


def test_an_offer_has_the_fields_that_the_job_sends() -> None:
    assert set(Offer.__struct_fields__) == set(FIELDS)


@pytest.mark.parametrize("name", OFFER)
@pytest.mark.parametrize("value", [None, [], {}, "", True])
def test_a_wrong_field_makes_a_record_unreadable(name: str, value: Any) -> None:
    assert read_offer(offer(**{name: value})) is None


@pytest.mark.parametrize("name", OFFER)
def test_a_missing_field_makes_a_record_unreadable(name: str) -> None:
    assert read_offer(json.dumps({key: value for key, value in OFFER.items() if key != name}).encode()) is None


@pytest.mark.parametrize("offer_id", ["a b", "a\r\nX-Evil: 1", "é", "x" * 129])
def test_an_id_that_is_no_http_header_makes_a_record_unreadable(offer_id: str) -> None:
    assert read_offer(offer(offer_id=offer_id)) is None


@given(st.binary())
def test_no_record_stops_the_consumer(data: bytes) -> None:
    it, shown, complaints = consumer()

    it.take(record(data))
    it.take(record(data + offer()))
    it.take(record(b"[" * 100_000))

    assert (it.offers, it.unreadable) == (len(shown), len(complaints))
    assert it.offers + it.unreadable == 3


def test_an_unreadable_record_is_reported_by_its_origin_and_not_by_what_it_says() -> None:
    it, _, complaints = consumer()

    it.take(record(b"a secret"))

    assert complaints == [
        "a record is not a readable offer: 8 bytes in shardId-000000000000, sequence number 49",
    ]


def test_unknown_fields_are_passed_on_and_a_line_is_a_line() -> None:
    data = json.dumps(OFFER | {"extra": {"a": "two\nlines"}}, indent=2).encode()

    line = as_json(data)

    assert read_offer(data) is not None
    assert b"\n" not in line
    assert json.loads(line) == OFFER | {"extra": {"a": "two\nlines"}}


def test_columns_line_up() -> None:
    line = as_columns(Offer(**OFFER | {"timestamp": datetime(2021, 7, 12, 12, 1, 58)})).decode()

    assert line == (
        "2021-07-12 12:01:58  ViewContent  35              557246      417.97   87.0%  11669fb6dd2a0f8aee40a4ffb2f25f31"
    )
    assert COLUMNS.index("offer") == line.index("11669f")


def test_a_user_cannot_steer_the_terminal() -> None:
    found = read_offer(offer(user_id="\x1b[2J\u009b1m\u202e\n"))
    assert found is not None

    assert as_columns(found).decode().isprintable()


def test_a_copy_is_left_out_as_long_as_its_id_is_remembered() -> None:
    it, shown, _ = consumer(seen=Seen(most=2))

    for name in "aabacab" + "dea":
        it.take(record(offer(offer_id=name)))

    assert shown == ["a", "b", "c", "b", "d", "e", "a"]
    assert (it.offers, it.repeats) == (7, 3)
    assert len(it.seen.ids) == 2


@pytest.mark.parametrize(
    ("since", "start"),
    [
        ("trim", TrimHorizon()),
        ("latest", Latest()),
        ("2021-07-12T12:00", AtTimestamp(datetime(2021, 7, 12, 12, tzinfo=UTC))),
        ("2021-07-12 12:00:00Z", AtTimestamp(datetime(2021, 7, 12, 12, tzinfo=UTC))),
        ("2021-07-12T14:00:00+02:00", AtTimestamp(datetime(2021, 7, 12, 12, tzinfo=UTC))),
        ("2021-07-12", AtTimestamp(datetime(2021, 7, 12, tzinfo=UTC))),
    ],
)
def test_since_is_a_word_or_a_time_in_utc(since: str, start: object) -> None:
    assert _start(since) == start


@pytest.mark.parametrize("since", ["yesterday", "", (datetime.now(UTC) + timedelta(hours=1)).isoformat()])
def test_any_other_since_is_a_mistake(since: str) -> None:
    with pytest.raises(typer.BadParameter):
        _start(since)


def test_aws_is_told_from_a_stand_in() -> None:
    assert _is_aws("https://kinesis.eu-central-1.amazonaws.com")
    assert _is_aws("https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com")
    assert _is_aws("https://kinesis.cn-north-1.amazonaws.com.cn")
    assert not _is_aws("http://127.0.0.1:4567")
