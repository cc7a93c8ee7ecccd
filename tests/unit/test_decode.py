"""Bytes become an event, or a reason why not."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clickstream.decode import Reason, Rejected, Stage, decode, decode_slowly
from clickstream.event import MAX_DEPTH, MAX_EVENT_BYTES, Event
from tests import oracle
from tests.events import EXAMPLE, event, payload

REJECTED = [
    (b"", Reason.EMPTY, None),
    (b" " * (MAX_EVENT_BYTES + 1), Reason.TOO_LARGE, None),
    (b'{"user_id": "\xff"}', Reason.NOT_UTF8, None),
    (payload(extra="x").replace(b'"x"', b'"\xff"'), Reason.NOT_UTF8, None),
    (b"{", Reason.MALFORMED_JSON, None),
    (b"\xef\xbb\xbf" + payload(), Reason.MALFORMED_JSON, None),
    (payload() + b"\x00", Reason.MALFORMED_JSON, None),
    (payload(price=float("nan")), Reason.MALFORMED_JSON, None),
    (payload(price=float("-inf")), Reason.MALFORMED_JSON, None),
    (payload(user_id="\ud800"), Reason.MALFORMED_JSON, None),
    (b"[" * 100_000, Reason.MALFORMED_JSON, None),
    (b"[]", Reason.NOT_AN_OBJECT, None),
    (b"null", Reason.NOT_AN_OBJECT, None),
    (payload(user_ip=...), Reason.MISSING_FIELD, "user_ip"),
    (payload(price=...), Reason.MISSING_FIELD, "additional_data.price"),
    (payload(additional_data=[]), Reason.WRONG_TYPE, "additional_data"),
    (payload(user_id=35), Reason.WRONG_TYPE, "user_id"),
    (payload(user_id=None), Reason.WRONG_TYPE, "user_id"),
    (payload(price="1.5"), Reason.WRONG_TYPE, "additional_data.price"),
    (payload(price=True), Reason.WRONG_TYPE, "additional_data.price"),
    (payload(product_id=5.0), Reason.WRONG_TYPE, "additional_data.product_id"),
    (payload(user_id=""), Reason.BAD_LENGTH, "user_id"),
    (payload(click_id="x" * 129), Reason.BAD_LENGTH, "click_id"),
    (payload(event_name="search"), Reason.UNKNOWN_EVENT, "event_name"),
    (payload(timestamp="2021-07-12"), Reason.BAD_TIMESTAMP, "timestamp"),
    (payload(timestamp="2021-02-29 00:00:00"), Reason.BAD_TIMESTAMP, "timestamp"),
    (payload(insertion_timestamp="2021-07-12T12:00:00+02:00"), Reason.BAD_TIMESTAMP, "insertion_timestamp"),
    (payload(user_ip="256.1.1.1"), Reason.BAD_IP, "user_ip"),
    (payload(user_ip="01.1.1.1"), Reason.BAD_IP, "user_ip"),
    (payload(user_ip="fe80::1%eth0"), Reason.BAD_IP, "user_ip"),
    (payload(user_ip="1.1.1.1\x00"), Reason.BAD_IP, "user_ip"),
    (payload(percent_viewed=100.1), Reason.OUT_OF_RANGE, "additional_data.percent_viewed"),
    (payload(time_on_data=-1), Reason.OUT_OF_RANGE, "additional_data.time_on_data"),
    (payload(product_id=2**63), Reason.OUT_OF_RANGE, "additional_data.product_id"),
    (payload(price=1).replace(b'"price": 1', b'"price": 1e999'), Reason.OUT_OF_RANGE, "additional_data.price"),
    (payload(price=1).replace(b'"price": 1', b'"price": ' + b"9" * 9000), Reason.OUT_OF_RANGE, "additional_data.price"),
    (
        payload(product_id=7).replace(b'_id": 7', b'_id": ' + b"9" * 9000),
        Reason.OUT_OF_RANGE,
        "additional_data.product_id",
    ),
]

ACCEPTED = [
    {"percent_viewed": 87},
    {"percent_viewed": 0, "price": -0.0},
    {"product_id": -(2**63)},
    {"user_id": "ü" * 128},
    {"user_id": "\x00"},
    {"user_ip": "2001:db8::1"},
    {"timestamp": "2021-07-12T12:01:58Z"},
    {"timestamp": "2021-07-12T12:01:58.123456789+00:00"},
    {"timestamp": "0001-01-01 00:00:00", "insertion_timestamp": "9999-12-31 23:59:59.999999"},
    {"something": {"else": [1e308, None, {}]}},
]


@pytest.mark.parametrize(("record", "reason", "field"), REJECTED, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_record_is_named(record: bytes, reason: Reason, field: str | None) -> None:
    rejected = decode(record)

    stage = Stage.DECODE if field is None else Stage.VALIDATE
    assert rejected == Rejected(stage, reason, field)


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_an_event_is_read_as_it_was_sent(changes: dict[str, Any]) -> None:
    read = decode(payload(**changes))

    assert isinstance(read, Event)
    assert read.user_id == event(**changes)["user_id"]
    assert read.additional_data.percent_viewed == event(**changes)["additional_data"]["percent_viewed"]


def test_of_a_repeated_key_the_last_one_counts_even_after_a_wrong_one() -> None:
    twice = payload().replace(b'{"timestamp"', b'{"user_id": 1, "user_ip": "x", "timestamp"')

    assert decode(twice) == decode(payload())


def test_a_record_of_exactly_a_mebibyte_is_an_event() -> None:
    record = payload(padding="x")
    record = record.replace(b'"x"', b'"' + b"x" * (MAX_EVENT_BYTES - len(record) + 1) + b'"')

    assert len(record) == MAX_EVENT_BYTES
    assert isinstance(decode(record), Event)
    assert decode(record + b" ") == Rejected(Stage.DECODE, Reason.TOO_LARGE)


@pytest.mark.parametrize("frames", [0, 300])
@pytest.mark.parametrize(("opening", "closing", "levels"), [("[", "]", 1), ('{"a":', "}", 1), ('[{"[[[[":', "}]", 2)])
def test_how_deep_is_too_deep_does_not_depend_on_who_asks(frames: int, opening: str, closing: str, levels: int) -> None:
    def judged(count: int, frames: int) -> object:
        if frames:
            return judged(count, frames - 1)
        record = payload(other=0).replace(b'"other": 0', f'"other": {opening * count}1{closing * count}'.encode())
        _agrees_with_the_oracle(record)
        return decode(record)

    deepest = (MAX_DEPTH - 1) // levels  # the event is a level itself

    assert isinstance(judged(deepest, frames), Event)
    assert judged(deepest + 1, frames) == Rejected(Stage.DECODE, Reason.MALFORMED_JSON)


def _agrees_with_the_oracle(record: bytes) -> None:
    ours, theirs = decode(record), oracle.read(record)
    if isinstance(theirs, oracle.Refusal):
        assert ours == Rejected(Stage(theirs.stage), Reason(theirs.reason), theirs.field)
    else:
        assert isinstance(ours, Event)
        assert ours.additional_data.price == theirs["additional_data"]["price"]
        assert ours.timestamp.replace(tzinfo=None) == theirs["timestamp"].replace(tzinfo=None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
strings = st.sampled_from([*[v for v in EXAMPLE.values() if isinstance(v, str)], "ViewContent", "::1", "1.1.1.1", ""])
numbers = st.integers(-3, 110) | st.floats(-1, 101) | st.integers() | st.floats()
nearly = st.fixed_dictionaries(
    {},
    optional={
        **{name: strings | json_values for name in EXAMPLE if name != "additional_data"},
        "additional_data": st.dictionaries(
            st.sampled_from(["time_on_data", "percent_viewed", "product_id", "price"]), numbers | json_values
        )
        | json_values,
        "other": json_values,
    },
)


@given(st.binary())
@example(b'{"a":1e999}')
def test_arbitrary_bytes_are_judged_as_the_oracle_does(record: bytes) -> None:
    _agrees_with_the_oracle(record)


@given(json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_json_is_judged_as_the_oracle_does(record: bytes) -> None:
    _agrees_with_the_oracle(record)


@given(nearly, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_what_is_nearly_an_event_is_judged_as_the_oracle_does(
    changes: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    text = json.dumps({**EXAMPLE, **changes}, separators=separators, ensure_ascii=ascii_only)

    _agrees_with_the_oracle(text.encode(errors="surrogatepass"))


@given(st.text("0123456789-:. TZtz+", max_size=30) | st.datetimes().map(lambda moment: moment.isoformat(" ")))
@example("2021-12-31 23:59:59.9999995")
@example("9999-12-31 23:59:59.9999999")
def test_timestamps_are_judged_as_the_oracle_does(timestamp: str) -> None:
    _agrees_with_the_oracle(payload(timestamp=timestamp))


@given(st.ip_addresses().map(str) | st.text("0123456789abcdef:.", max_size=40))
def test_addresses_are_judged_as_the_oracle_does(address: str) -> None:
    _agrees_with_the_oracle(payload(user_ip=address))


@given(st.data())
def test_damaged_bytes_are_judged_as_the_oracle_does_and_the_slow_reading_agrees(data: st.DataObject) -> None:
    record = bytearray(payload())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(record) - 1))
        record[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    damaged = bytes(record)

    _agrees_with_the_oracle(damaged)
    assert decode(damaged) == decode_slowly(damaged)
