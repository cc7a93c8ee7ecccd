"""The oracle's own proof: each rule by a hand-written example, and each way a job may go wrong by a named breakage."""

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracle
from tests.oracle import Arrived, Expected, Refusal, Row, access, differences, expected, location, moment, offer, read

ARRIVAL = datetime(2021, 7, 2, 9, 2, 3, 456000, tzinfo=UTC)
ABSENT = object()
ADDITIONAL = ("time_on_data", "percent_viewed", "product_id", "price")
TOP_LEVEL = (
    "timestamp",
    "user_id",
    "pixel_id",
    "click_id",
    "insertion_timestamp",
    "event_name",
    "user_ip",
    "additional_data",
)
ALL_FIELDS = (*TOP_LEVEL, *(f"additional_data.{field}" for field in ADDITIONAL))

MOUNTAIN_VIEW = {
    "country": {"iso_code": "US", "names": {"en": "United States"}},
    "subdivisions": [
        {"iso_code": "CA", "names": {"de": "Kalifornien", "en": "California"}},
        {"names": {"en": "Santa Clara"}},
    ],
    "city": {"names": {"en": "Mountain View"}},
}
CITY_STATE = {"country": {"iso_code": "SG"}, "city": {"names": {"en": "Singapore"}}}
PLACES = {"8.8.8.8": MOUNTAIN_VIEW, "2001:4860:4860::8888": MOUNTAIN_VIEW, "1.1.1.1": CITY_STATE}
NAMES = {"35": "Ada Lovelace", "36": "Grace Hopper"}


def event(**changes: Any) -> bytes:
    """A valid event with what is named changed, or ABSENT; the fields of additional_data by their own names."""
    fields: Row = {
        "timestamp": "2021-07-02 08:59:58.732726",
        "user_id": "35",
        "pixel_id": "wjgao4w1oi",
        "click_id": "a5cf179b9c9d483abf6d424d44a293be",
        "insertion_timestamp": "2021-07-02 08:59:58.732754",
        "event_name": "Search",
        "user_ip": "8.8.8.8",
        "additional_data": {"time_on_data": 79, "percent_viewed": 39.7, "product_id": 557246, "price": 417.97},
    }
    for field, value in changes.items():
        into = fields["additional_data"] if field in ADDITIONAL else fields
        if value is ABSENT:
            del into[field]
        else:
            into[field] = value
    return json.dumps(fields).encode()


def spelled(field: str, literal: str) -> bytes:
    """A valid event with the value of `field` written exactly so."""
    return event(**{field: "HERE"}).replace(b'"HERE"', literal.encode(), 1)


def leaf(path: str) -> str:
    return path.rpartition(".")[2]


def arrived(sequence: int, payload: bytes, arrival: datetime = ARRIVAL) -> Arrived:
    return Arrived(payload, arrival, "shardId-000000000000", str(sequence))


def outcome(*records: Arrived, names: Mapping[str, str] = NAMES) -> Expected:
    return expected(records, PLACES.get, names)


def accepted(payload: bytes) -> Row:
    row = read(payload)
    assert not isinstance(row, Refusal), row
    return row


# Independence


def test_the_oracle_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))

    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert {module.partition(".")[0] for module in imported} <= sys.stdlib_module_names


# Rules 1 to 5: decoding


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(b"", "empty", id="no bytes"),
        pytest.param(event() + b" " * 1_048_577, "too_large", id="more than a MiB"),
        pytest.param(b"\xff" * 1_048_577, "too_large", id="too large before not UTF-8"),
        pytest.param(event(pixel_id="HERE").replace(b"HERE", b"\xe9"), "not_utf8", id="Latin-1"),
        pytest.param(event(pixel_id="HERE").replace(b"HERE", b"\xed\xa0\x80"), "not_utf8", id="a surrogate in UTF-8"),
        pytest.param(event(pixel_id="HERE").replace(b"HERE", b"\xc0\x80"), "not_utf8", id="an overlong zero"),
        pytest.param(event().decode().encode("utf-16"), "not_utf8", id="UTF-16"),
        pytest.param(b" \t\r\n", "malformed_json", id="whitespace alone"),
        pytest.param(b"\xef\xbb\xbf" + event(), "malformed_json", id="a byte order mark"),
        pytest.param(event()[:-1], "malformed_json", id="cut short"),
        pytest.param(event() + b"x", "malformed_json", id="something after the end"),
        pytest.param(event() + b"\n" + event(), "malformed_json", id="two in one"),
        pytest.param(event() + b"\x00", "malformed_json", id="a zero byte after the end"),
        pytest.param(event() + "\u00a0".encode(), "malformed_json", id="a no-break space after the end"),
        pytest.param(event() + b"\x0c", "malformed_json", id="a form feed after the end"),
        pytest.param(
            event(pixel_id="HERE").replace(b"HERE", b"a\nb"), "malformed_json", id="a bare newline in a string"
        ),
        pytest.param(
            event(pixel_id="HERE").replace(b"HERE", b"a\x00b"), "malformed_json", id="a zero byte in a string"
        ),
        pytest.param(event(pixel_id="HERE").replace(b"HERE", rb"\x41"), "malformed_json", id="an unknown escape"),
        pytest.param(spelled("price", "NaN"), "malformed_json", id="NaN"),
        pytest.param(spelled("price", "Infinity"), "malformed_json", id="Infinity"),
        pytest.param(spelled("price", "-Infinity"), "malformed_json", id="minus Infinity"),
        pytest.param(spelled("unknown", "NaN"), "malformed_json", id="NaN in an unknown field"),
        pytest.param(spelled("price", "01"), "malformed_json", id="a leading zero"),
        pytest.param(spelled("price", "+1"), "malformed_json", id="a plus sign"),
        pytest.param(spelled("price", "1."), "malformed_json", id="a point without digits"),
        pytest.param(spelled("price", ".5"), "malformed_json", id="a point without a whole part"),
        pytest.param(spelled("price", "0x10"), "malformed_json", id="hexadecimal"),
        pytest.param(spelled("price", "1_000"), "malformed_json", id="an underscore in a number"),
        pytest.param(spelled("price", "\u0661"), "malformed_json", id="an Arabic digit"),
        pytest.param(spelled("price", "1,"), "malformed_json", id="a trailing comma"),
        pytest.param(spelled("price", "'1'"), "malformed_json", id="single quotes"),
        pytest.param(spelled("price", "True"), "malformed_json", id="Python's True"),
        pytest.param(spelled("pixel_id", r'"\ud83d"'), "malformed_json", id="half a surrogate pair"),
        pytest.param(spelled("pixel_id", r'"\ude00\ud83d"'), "malformed_json", id="a surrogate pair backwards"),
        pytest.param(spelled("unknown", r'"\ud83d"'), "malformed_json", id="half a pair in an unknown field"),
        pytest.param(spelled("unknown", r'[{"a": ["\udc00"]}]'), "malformed_json", id="half a pair deep inside"),
        pytest.param(spelled("unknown", r'{"\udc00": 1}'), "malformed_json", id="half a pair in a key"),
        pytest.param(spelled("unknown", r'"\udc00", "unknown": 1'), "malformed_json", id="half a pair, replaced later"),
        pytest.param(rb'"\udc00"', "malformed_json", id="half a pair alone"),
        pytest.param(spelled("unknown", "[" * 100_000 + "]" * 100_000), "malformed_json", id="too deep"),
        pytest.param(b"[]", "not_an_object", id="an array"),
        pytest.param(b"[" + event() + b"]", "not_an_object", id="an array of one event"),
        pytest.param(b"null", "not_an_object", id="null"),
        pytest.param(b'"' + b"x" * 10 + b'"', "not_an_object", id="a string"),
        pytest.param(b"1", "not_an_object", id="a number"),
        pytest.param(b"1" * 5000, "not_an_object", id="a number longer than int() takes"),
    ],
)
def test_what_cannot_be_read_is_refused_at_decoding_without_a_field(payload: bytes, reason: str) -> None:
    assert read(payload) == Refusal("decode", reason, None)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b" \t\r\n" + event() + b"\n\r\t ", id="JSON whitespace around it"),
        pytest.param(event() + b" " * (1_048_576 - len(event())), id="a MiB exactly"),
        pytest.param(spelled("unknown", "[" * 10 + "]" * 10), id="ten levels"),
        pytest.param(spelled("unknown", "1e999"), id="a huge number in an unknown field"),
        pytest.param(spelled("unknown", "1" * 5000), id="a long number in an unknown field"),
        pytest.param(spelled("unknown", r'"\ud83d\ude00 \u0000 \\ud83d"'), id="a whole pair and an escaped backslash"),
        pytest.param(spelled("unknown", '"\u007f\u0085\ue000\uffff"'), id="odd characters that JSON allows"),
    ],
)
def test_what_the_rfc_allows_is_read(payload: bytes) -> None:
    assert accepted(payload) == accepted(event())


# Rule 6: validating


@pytest.mark.parametrize("field", ALL_FIELDS)
def test_an_absent_field_is_missing(field: str) -> None:
    assert read(event(**{leaf(field): ABSENT})) == Refusal("validate", "missing_field", field)


@pytest.mark.parametrize("field", ALL_FIELDS)
def test_null_is_a_wrong_type_in_every_field(field: str) -> None:
    assert read(event(**{leaf(field): None})) == Refusal("validate", "wrong_type", field)


@pytest.mark.parametrize("value", [True, 35, 3.5, [], ["35"], {}])
@pytest.mark.parametrize("field", TOP_LEVEL[:-1])
def test_the_first_seven_fields_must_be_strings(field: str, value: Any) -> None:
    assert read(event(**{field: value})) == Refusal("validate", "wrong_type", field)


@pytest.mark.parametrize("value", [True, 1, "{}", []])
def test_additional_data_must_be_an_object(value: Any) -> None:
    assert read(event(additional_data=value)) == Refusal("validate", "wrong_type", "additional_data")


@pytest.mark.parametrize("value", [True, False, "79", "", [], [1], {}])
@pytest.mark.parametrize("field", ADDITIONAL)
def test_the_four_of_additional_data_must_be_numbers_and_booleans_are_none(field: str, value: Any) -> None:
    assert read(event(**{field: value})) == Refusal("validate", "wrong_type", f"additional_data.{field}")


@pytest.mark.parametrize("literal", ["5.0", "1e3", "1E3", "-0.0", "1e999", "0.5"])
def test_a_product_id_must_be_written_as_a_whole_number(literal: str) -> None:
    assert read(spelled("product_id", literal)) == Refusal("validate", "wrong_type", "additional_data.product_id")


@pytest.mark.parametrize("value", ["", "x" * 129, "😀" * 129])
@pytest.mark.parametrize("field", ["user_id", "pixel_id", "click_id"])
def test_an_id_outside_1_to_128_characters_has_a_bad_length(field: str, value: str) -> None:
    assert read(event(**{field: value})) == Refusal("validate", "bad_length", field)


@pytest.mark.parametrize("value", ["x", "x" * 128, "😀" * 128])
@pytest.mark.parametrize("field", ["user_id", "pixel_id", "click_id"])
def test_an_id_is_measured_in_characters_and_not_in_bytes(field: str, value: str) -> None:
    assert accepted(event(**{field: value}))[field] == value


@pytest.mark.parametrize("value", ["Search", "AddToCart", "ViewContent", "Purchase"])
def test_four_events_are_known(value: str) -> None:
    assert accepted(event(event_name=value))["event_name"] == value


@pytest.mark.parametrize("value", ["", "search", "Search ", "PageView"])
def test_any_other_event_is_unknown(value: str) -> None:
    assert read(event(event_name=value)) == Refusal("validate", "unknown_event", "event_name")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2021-07-12 12:01:58", datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)),
        ("2021-07-12T12:01:58Z", datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)),
        ("2021-07-12t12:01:58z", datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)),
        ("2021-07-12 12:01:58+00:00", datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)),
        ("2021-07-12 12:01:58-00:00", datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)),
        ("2021-07-12 12:01:58.5+0000", datetime(2021, 7, 12, 12, 1, 58, 500000, tzinfo=UTC)),
        ("2021-07-12 12:01:58.732726", datetime(2021, 7, 12, 12, 1, 58, 732726, tzinfo=UTC)),
        ("2021-07-12 12:01:58.7327264999", datetime(2021, 7, 12, 12, 1, 58, 732726, tzinfo=UTC)),
        ("2021-07-12 12:01:58.7327265", datetime(2021, 7, 12, 12, 1, 58, 732727, tzinfo=UTC)),
        ("2021-12-31 23:59:59.9999995", datetime(2022, 1, 1, tzinfo=UTC)),
        ("9999-12-31 23:59:59.9999994", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("0001-01-01 00:00:00", datetime(1, 1, 1, tzinfo=UTC)),
        ("2024-02-29 00:00:00", datetime(2024, 2, 29, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_utc_to_the_microsecond(text: str, when: datetime) -> None:
    row = accepted(event(timestamp=text, insertion_timestamp=text))

    assert row["timestamp"] == row["insertion_timestamp"] == when
    assert row["timestamp"].tzinfo is UTC


@pytest.mark.parametrize("field", ["timestamp", "insertion_timestamp"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "2021-07-12",
        "1626091318",
        "2021-7-12 12:01:58",
        "2021-07-12  12:01:58",
        "2021-07-12 12:01",
        "2021-07-12 12:01:58\n",
        " 2021-07-12 12:01:58",
        "2021-07-12 12:01:58.",
        "2021-07-12 12:01:58,5",
        "2021-07-12 12:01:58 Z",
        "2021-07-12 12:01:58+00",
        "2021-07-12 12:01:58+02:00",
        "2021-07-12 12:01:58+00:01",
        "2021-07-12 24:00:00",
        "2021-07-12 12:60:00",
        "2021-12-31 23:59:60",
        "2021-02-29 12:00:00",
        "2021-13-01 12:00:00",
        "2021-00-01 12:00:00",
        "0000-01-01 00:00:00",
        "12021-07-12 12:01:58",
        "9999-12-31 23:59:59.9999995",
        "\u0662021-07-12 12:01:58",
        "2021-07-1\u0662 12:01:58",
        "2021-07-12 12:01:58.\u0665",
    ],
)
def test_any_other_timestamp_is_bad(field: str, text: str) -> None:
    assert read(event(**{field: text})) == Refusal("validate", "bad_timestamp", field)


@given(st.text("0123456789", min_size=1, max_size=12))
def test_a_fraction_rounds_half_up(digits: str) -> None:
    microseconds = int((Decimal(f"0.{digits}") * 1_000_000).quantize(Decimal(1), ROUND_HALF_UP))

    assert moment(f"2021-07-12 12:01:58.{digits}") == datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC) + timedelta(
        microseconds=microseconds
    )


@pytest.mark.parametrize("value", ["8.8.8.8", "0.0.0.0", "255.255.255.255", "::", "2001:DB8::1", "::ffff:8.8.8.8"])
def test_an_address_is_kept_as_it_was_written(value: str) -> None:
    assert accepted(event(user_ip=value))["user_ip"] == value


@pytest.mark.parametrize(
    "value",
    ["", "8.8.8", "8.8.8.08", "8.8.8.256", "8.8.8.8 ", "8.8.8.8/32", "134744072", "fe80::1%eth0", "::1%", "1:2", "a.b",
     "[::1]", "8.8.8.\u0668", ":::", "12345::"],
)  # fmt: skip
def test_anything_else_is_a_bad_ip(value: str) -> None:
    assert read(event(user_ip=value)) == Refusal("validate", "bad_ip", "user_ip")


@pytest.mark.parametrize(
    ("field", "literal"),
    [
        ("percent_viewed", "100.00000000000002"),
        ("percent_viewed", "101"),
        ("percent_viewed", "-0.1"),
        ("percent_viewed", "1e999"),
        ("time_on_data", "-1"),
        ("time_on_data", "1e999"),
        ("time_on_data", "9" * 400),
        ("price", "-0.01"),
        ("price", "-1e999"),
        ("price", "9" * 5000),
        ("product_id", "9223372036854775808"),
        ("product_id", "-9223372036854775809"),
        ("product_id", "9" * 400),
        ("product_id", "9" * 5000),
    ],
)
def test_a_number_out_of_range_is_refused(field: str, literal: str) -> None:
    assert read(spelled(field, literal)) == Refusal("validate", "out_of_range", f"additional_data.{field}")


@pytest.mark.parametrize(
    ("field", "literal", "value"),
    [
        ("percent_viewed", "0", 0.0),
        ("percent_viewed", "100", 100.0),
        ("percent_viewed", "1e2", 100.0),
        ("percent_viewed", "-0.0", 0.0),
        ("time_on_data", "1.7976931348623157e308", 1.7976931348623157e308),
        ("price", "1e-999", 0.0),
        ("price", "87", 87.0),
        ("product_id", "9223372036854775807", 2**63 - 1),
        ("product_id", "-9223372036854775808", -(2**63)),
        ("product_id", "-0", 0),
    ],
)
def test_a_number_in_range_becomes_a_double_and_a_product_id_an_integer(field: str, literal: str, value: float) -> None:
    found = accepted(spelled(field, literal))["additional_data"][field]

    assert found == value
    assert type(found) is type(value)


def test_the_first_failing_field_is_the_one_named() -> None:
    fields = [field for field in ALL_FIELDS if field != "additional_data"]  # wrong itself, it has no fields

    for place, first in enumerate(fields):
        wrong = dict.fromkeys(leaf(field) for field in fields[place:])
        assert read(event(**wrong)) == Refusal("validate", "wrong_type", first)


def test_a_wrong_type_is_named_before_a_field_that_is_missing_later() -> None:
    assert read(event(user_ip=1, additional_data=ABSENT)) == Refusal("validate", "wrong_type", "user_ip")
    assert read(event(additional_data=ABSENT, user_ip="::1")) == Refusal("validate", "missing_field", "additional_data")


def test_of_equal_keys_the_last_one_wins() -> None:
    last_is_good = spelled("user_ip", '"nowhere", "user_ip": "1.1.1.1"')
    last_is_bad = spelled("user_ip", r'"1.1.1.1", "user\u005fip": "nowhere"')
    not_merged = event()[:-1] + b', "additional_data": {"price": 1}}'

    assert accepted(last_is_good)["user_ip"] == "1.1.1.1"
    assert read(last_is_bad) == Refusal("validate", "bad_ip", "user_ip")
    assert read(not_merged) == Refusal("validate", "missing_field", "additional_data.time_on_data")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text().map("x".__add__), JSON_VALUES)
def test_an_unknown_field_changes_nothing(field: str, value: Any) -> None:
    assert accepted(event(**{field: value})) == accepted(event())


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_arrives_ends_in_exactly_one_table(payload: bytes) -> None:
    result = outcome(arrived(1, payload))

    assert len(result.enriched) + len(result.rejected) == 1


# Rules 7 to 9: the rows


def test_an_enriched_row_holds_the_event_its_place_its_name_and_its_origin() -> None:
    payload = event(timestamp="2021-07-01T23:59:59.9999999Z", percent_viewed=87)

    result = outcome(arrived(7, payload))

    assert result.rejected == []
    assert result.enriched == [
        {
            "timestamp": datetime(2021, 7, 2, 0, 0, 0, tzinfo=UTC),
            "user_id": "35",
            "pixel_id": "wjgao4w1oi",
            "click_id": "a5cf179b9c9d483abf6d424d44a293be",
            "insertion_timestamp": datetime(2021, 7, 2, 8, 59, 58, 732754, tzinfo=UTC),
            "event_name": "Search",
            "user_ip": "8.8.8.8",
            "additional_data": {"time_on_data": 79.0, "percent_viewed": 87.0, "product_id": 557246, "price": 417.97},
            "name": "Ada Lovelace",
            "country": "US",
            "region": "California",
            "city": "Mountain View",
            "geo_status": "found",
            "name_status": "found",
            "arrival_timestamp": ARRIVAL,
            "shard_id": "shardId-000000000000",
            "sequence_number": "7",
            "year": "2021",
            "month": "07",
            "day": "02",
            "hour": "09",
        }
    ]


def test_a_rejected_row_keeps_the_bytes_and_says_where_they_came_from() -> None:
    payload = event(price=-1) + b"\r\n"

    result = outcome(arrived(7, payload))

    assert result.enriched == []
    assert result.rejected == [
        {
            "payload": payload,
            "stage": "validate",
            "reason": "out_of_range",
            "field": "additional_data.price",
            "arrival_timestamp": ARRIVAL,
            "shard_id": "shardId-000000000000",
            "sequence_number": "7",
            "year": "2021",
            "month": "07",
            "day": "02",
            "hour": "09",
        }
    ]


def test_an_event_has_the_same_columns_whatever_is_known_of_it() -> None:
    known, unknown = outcome(arrived(1, event()), arrived(2, event(user_id="x", user_ip="127.0.0.1"))).enriched

    assert list(known) == list(unknown)


@pytest.mark.parametrize("user_ip", ["8.8.8.8", "::ffff:8.8.8.8", "::FFFF:808:808", "2001:4860:4860:0:0:0:0:8888"])
def test_an_address_is_looked_up_in_its_shortest_form_and_mapped_ones_as_ipv4(user_ip: str) -> None:
    assert oracle.place(user_ip, PLACES.get) == {
        "country": "US",
        "region": "California",
        "city": "Mountain View",
        "geo_status": "found",
    }


@pytest.mark.parametrize(
    "user_ip",
    ["10.0.0.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "239.1.2.3", "::1", "fe80::1",
     "fc00::1", "ff0e::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:224.0.0.1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_unknown_without_being_looked_up(user_ip: str) -> None:
    assert oracle.place(user_ip, lambda address: pytest.fail(f"asked for {address}")) == {
        "country": None,
        "region": None,
        "city": None,
        "geo_status": "unknown",
    }


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(None, id="no record"),
        pytest.param({}, id="an empty record"),
        pytest.param({"country": {"names": {"en": "Nowhere"}}}, id="a country without a code"),
        pytest.param({k: MOUNTAIN_VIEW[k] for k in ("subdivisions", "city")}, id="a city without a country"),
    ],
)
def test_a_place_without_a_country_is_unknown(record: Row | None) -> None:
    found = oracle.place("8.8.8.8", lambda _: record)

    assert found == {"country": None, "region": None, "city": None, "geo_status": "unknown"}


@pytest.mark.parametrize(
    ("record", "region", "city"),
    [
        pytest.param({}, None, None, id="the country alone"),
        pytest.param({"subdivisions": []}, None, None, id="no subdivision"),
        pytest.param({"subdivisions": [{"names": {"de": "Kalifornien"}}]}, None, None, id="no English name"),
        pytest.param({"subdivisions": MOUNTAIN_VIEW["subdivisions"]}, "California", None, id="no city"),
        pytest.param({"city": MOUNTAIN_VIEW["city"]}, None, "Mountain View", id="no region"),
    ],
)
def test_a_found_place_may_lack_region_and_city(record: Row, region: str | None, city: str | None) -> None:
    found = oracle.place("8.8.8.8", lambda _: {"country": {"iso_code": "US"}} | record)

    assert found == {"country": "US", "region": region, "city": city, "geo_status": "found"}


def test_a_user_without_a_name_is_unknown() -> None:
    [row] = outcome(arrived(1, event(user_id="nobody"))).enriched

    assert (row["name"], row["name_status"]) == (None, "unknown")


def test_the_partition_is_the_arrival_hour_whatever_the_clients_clock_says() -> None:
    new_year = datetime(2022, 1, 1, 0, 0, 0, tzinfo=UTC)
    good, bad = event(timestamp="2999-12-31 23:59:59"), event(timestamp="never")

    result = outcome(arrived(1, good, new_year), arrived(2, bad, new_year - timedelta(milliseconds=1)))

    parts = [[row[part] for part in ("year", "month", "day", "hour")] for row in result.enriched + result.rejected]
    assert parts == [["2022", "01", "01", "00"], ["2021", "12", "31", "23"]]


@pytest.mark.parametrize(
    "arrival",
    [
        pytest.param(datetime(2021, 7, 2, 9, 2), id="without a zone"),
        pytest.param(ARRIVAL.astimezone(timezone(timedelta(hours=2))), id="in another zone"),
        pytest.param(ARRIVAL.replace(microsecond=456789), id="finer than a stream tells"),
    ],
)
def test_an_arrival_no_stream_would_report_is_a_mistake_in_the_test(arrival: datetime) -> None:
    with pytest.raises(ValueError, match="whole milliseconds"):
        arrived(1, event(), arrival)


def test_two_records_of_one_origin_are_a_mistake_in_the_test() -> None:
    with pytest.raises(ValueError, match="two records have the origin shardId-000000000000/1"):
        outcome(arrived(1, event()), arrived(1, event()))


# Rule 10: offers


def test_an_offer_is_what_its_consumers_need_and_an_id_from_the_click() -> None:
    payload = event(event_name="ViewContent", percent_viewed=61, timestamp="0021-07-02T08:59:58Z")

    assert outcome(arrived(1, payload)).offers == [
        {
            "timestamp": "0021-07-02 08:59:58.000000",
            "event_name": "ViewContent",
            "percent_viewed": 61.0,
            "product_id": 557246,
            "price": 417.97,
            "user_id": "35",
            "click_id": "a5cf179b9c9d483abf6d424d44a293be",
            "offer_id": "827a57d8f02bd37fce1ae976ae3643a5",  # by sha256sum, of offer:a5cf…
        }
    ]


@pytest.mark.parametrize(
    ("event_name", "percent_viewed", "offers"),
    [
        ("ViewContent", 60.00000000000001, 1),
        ("ViewContent", 100, 1),
        ("ViewContent", 60, 0),
        ("ViewContent", 59.9, 0),
        ("Search", 99, 0),
        ("AddToCart", 99, 0),
        ("Purchase", 99, 0),
        ("ViewContent", 101, 0),
    ],
)
def test_an_offer_is_for_content_viewed_beyond_60_percent(event_name: str, percent_viewed: float, offers: int) -> None:
    result = outcome(arrived(1, event(event_name=event_name, percent_viewed=percent_viewed)))

    assert len(result.offers) == offers


# Rule 11: last access


def test_the_newest_access_wins_whatever_the_order_of_arrival() -> None:
    newer = event(timestamp="2021-07-02 08:59:59", user_ip="1.1.1.1")
    older = event(timestamp="2021-07-02 08:59:58.999999", user_ip="8.8.8.8")

    assert outcome(arrived(1, newer), arrived(2, older)).users == {
        "35": ("2021-07-02 08:59:59.000000", "Singapore, SG")
    }


def test_an_access_is_never_later_than_five_minutes_after_its_arrival() -> None:
    result = outcome(arrived(1, event(timestamp="3000-01-01 00:00:00")))

    assert result.users == {"35": ("2021-07-02 09:07:03.456000", "Mountain View, California, US")}


def test_a_tie_goes_to_the_larger_sequence_number_as_an_integer() -> None:
    result = outcome(arrived(9, event(user_ip="1.1.1.1")), arrived(10, event()), arrived(8, event(user_ip="1.1.1.1")))

    assert result.users == {"35": ("2021-07-02 08:59:58.732726", "Mountain View, California, US")}


def test_an_unknown_place_is_the_location_unknown() -> None:
    result = outcome(arrived(1, event(user_ip="10.0.0.1")))

    assert result.users["35"][1] == "unknown"


def test_a_rejected_event_is_no_access() -> None:
    assert outcome(arrived(1, event(price=-1))).users == {}


# The comparison: a job that is right, damaged in one way at a time

NIGHT = ARRIVAL.replace(hour=23)  # already the next day east of Greenwich
RECORDS = [
    arrived(1, event()),
    arrived(2, event(event_name="ViewContent", percent_viewed=60, click_id="at 60")),
    arrived(3, event(event_name="ViewContent", percent_viewed=60.5, click_id="over 60", user_id="36", product_id=1)),
    arrived(4, event(event_name="Purchase", percent_viewed=87, click_id="bought"), NIGHT),
    arrived(5, event(percent_viewed=101)),
    arrived(6, spelled("price", "NaN")),
    arrived(7, event(price=True)),
    arrived(8, event(pixel_id="HERE").replace(b"HERE", b"\xe9"), NIGHT),
    # Of shopper 40: the newest arrives in the middle, and two share its moment
    arrived(9, event(user_id="40", timestamp="2021-07-02 09:00:01", user_ip="1.1.1.1")),
    arrived(10, event(user_id="40", timestamp="2021-07-02 09:00:01")),
    arrived(11, event(user_id="40", timestamp="2021-07-02 09:00:00", user_ip="10.0.0.1")),
    # Shopper 41 lives in the year 3000
    arrived(12, event(user_id="41", timestamp="3000-01-01 00:00:00")),
    arrived(13, event(user_id="41", timestamp="2021-07-02 09:30:00", user_ip="1.1.1.1"), NIGHT),
]
RIGHT = outcome(*RECORDS)


def differences_of(job: Expected, **options: bool) -> list[str]:
    return differences(RIGHT, job.enriched, job.rejected, job.offers, job.users, **options)


def row(rows: list[Row], sequence: int) -> Row:
    return next(row for row in rows if row["sequence_number"] == str(sequence))


def accept(job: Expected, sequence: int, **additional: Any) -> None:
    """The record of this number comes out enriched, with these values, and is not rejected."""
    refused = row(job.rejected, sequence)
    origin = {column: refused[column] for column in refused if column in job.enriched[0]}
    lenient = deepcopy(row(job.enriched, 1)) | origin
    lenient["additional_data"] |= additional
    job.rejected.remove(refused)
    job.enriched.append(lenient)


def accept_101(job: Expected) -> None:
    accept(job, 5, percent_viewed=101.0)


def accept_nan(job: Expected) -> None:
    accept(job, 6, price=float("nan"))


def accept_boolean(job: Expected) -> None:
    accept(job, 7, price=1.0)


def drop_fractions(job: Expected) -> None:
    for each in job.enriched:
        each["timestamp"] = each["timestamp"].replace(microsecond=0)


def forget_the_zone(job: Expected) -> None:
    for each in job.enriched:
        each["insertion_timestamp"] = each["insertion_timestamp"].replace(tzinfo=None)


def offer_from_60_on(job: Expected) -> None:
    job.offers[:] = [
        offer(each)
        for each in job.enriched
        if each["event_name"] == "ViewContent" and each["additional_data"]["percent_viewed"] >= 60
    ]


def offer_for_any_event(job: Expected) -> None:
    job.offers[:] = [offer(each) for each in job.enriched if each["additional_data"]["percent_viewed"] > 60]


def offer_id_from_the_user(job: Expected) -> None:
    for each in job.offers:
        each["offer_id"] = offer(row(job.enriched, 3) | {"click_id": each["user_id"]})["offer_id"]


def offer_the_wrong_price(job: Expected) -> None:
    job.offers[0]["price"] = 418.0


def offer_with_a_number_in_a_string(job: Expected) -> None:
    job.offers[0]["percent_viewed"] = "60.5"


def offer_the_product_true(job: Expected) -> None:
    job.offers[0]["product_id"] = True


def lose_an_offer(job: Expected) -> None:
    job.offers.pop()


def repeat_an_offer(job: Expected) -> None:
    job.offers.append(dict(job.offers[0]))


def partition_of(when: datetime) -> Row:
    return {"year": f"{when:%Y}", "month": f"{when:%m}", "day": f"{when:%d}", "hour": f"{when:%H}"}


def partition_by_event_time(job: Expected) -> None:
    for each in job.enriched:
        each |= partition_of(each["timestamp"])  # noqa: PLW2901


def partition_enriched_in_another_zone(job: Expected) -> None:
    for each in job.enriched:
        each |= partition_of(each["arrival_timestamp"].astimezone(timezone(timedelta(hours=2))))  # noqa: PLW2901


def partition_rejected_in_another_zone(job: Expected) -> None:
    for each in job.rejected:
        each |= partition_of(each["arrival_timestamp"].astimezone(timezone(timedelta(hours=-5))))  # noqa: PLW2901


def do_not_pad_enriched(job: Expected) -> None:
    for each in job.enriched:
        each["hour"] = str(int(each["hour"]))


def do_not_pad_rejected(job: Expected) -> None:
    for each in job.rejected:
        each["hour"] = str(int(each["hour"]))


def lose_the_names(job: Expected) -> None:
    for each in job.enriched:
        each |= {"name": None, "name_status": "unknown"}


def give_a_name_to_the_wrong_user(job: Expected) -> None:
    row(job.enriched, 3)["name"] = NAMES["35"]


def call_a_known_place_pending(job: Expected) -> None:
    row(job.enriched, 3)["geo_status"] = "pending"


def swap_region_and_city(job: Expected) -> None:
    for each in job.enriched:
        each["region"], each["city"] = each["city"], each["region"]


def round_a_double(job: Expected) -> None:
    row(job.enriched, 1)["additional_data"]["price"] = 417.9700012207031  # as a FLOAT column would


def make_a_double_an_integer(job: Expected) -> None:
    row(job.enriched, 1)["additional_data"]["time_on_data"] = 79


def lose_a_column(job: Expected) -> None:
    for each in job.enriched:
        del each["pixel_id"]


def add_a_column(job: Expected) -> None:
    for each in job.enriched:
        each["unknown"] = 1


def lose_an_enriched_row(job: Expected) -> None:
    job.enriched.remove(row(job.enriched, 4))


def lose_a_rejected_row(job: Expected) -> None:
    job.rejected.remove(row(job.rejected, 8))


def write_an_enriched_row_twice(job: Expected) -> None:
    job.enriched.append(dict(row(job.enriched, 4)))


def write_a_rejected_row_twice(job: Expected) -> None:
    job.rejected.append(dict(row(job.rejected, 8)))


def reject_an_enriched_row_as_well(job: Expected) -> None:
    job.rejected.append(row(job.rejected, 5) | {"sequence_number": "4"})


def swap_two_origins(job: Expected) -> None:
    one, other = row(job.enriched, 1), row(job.enriched, 2)
    one["sequence_number"], other["sequence_number"] = other["sequence_number"], one["sequence_number"]


def name_another_shard(job: Expected) -> None:
    row(job.enriched, 4)["shard_id"] = "shardId-000000000001"


def mend_the_payload(job: Expected) -> None:
    for each in job.rejected:
        each["payload"] = each["payload"].decode(errors="replace").encode()


def read_the_payload_as_text(job: Expected) -> None:
    row(job.rejected, 5)["payload"] = row(job.rejected, 5)["payload"].decode()


def give_another_reason(job: Expected) -> None:
    row(job.rejected, 8)["reason"] = "malformed_json"


def name_another_field(job: Expected) -> None:
    row(job.rejected, 5)["field"] = "percent_viewed"


def name_another_stage(job: Expected) -> None:
    row(job.rejected, 5)["stage"] = "decode"


def choose_accesses(job: Expected, rank: Callable[[Row], Any], when: Callable[[Row], datetime] = access) -> None:
    """Keep of each user the row that ranks highest; of equal ranks the first to arrive."""
    of_user: dict[str, list[Row]] = defaultdict(list)
    for each in job.enriched:
        of_user[each["user_id"]].append(each)
    for user_id, rows in of_user.items():
        winner = max(rows, key=rank)
        job.users[user_id] = (f"{when(winner):%Y-%m-%d %H:%M:%S.%f}", location(winner))


def oldest_access_wins(job: Expected) -> None:
    choose_accesses(job, lambda each: -access(each).timestamp())


def last_arrival_wins(job: Expected) -> None:
    choose_accesses(job, lambda each: int(each["sequence_number"]))


def believe_the_year_3000(job: Expected) -> None:
    choose_accesses(job, lambda each: (each["timestamp"], int(each["sequence_number"])), lambda each: each["timestamp"])


def limit_the_value_but_not_the_choice(job: Expected) -> None:
    choose_accesses(job, lambda each: (each["timestamp"], int(each["sequence_number"])))


def first_of_a_tie_wins(job: Expected) -> None:
    choose_accesses(job, access)


def compare_sequence_numbers_as_text(job: Expected) -> None:
    choose_accesses(job, lambda each: (access(each), each["sequence_number"]))


def lose_a_user(job: Expected) -> None:
    del job.users["40"]


def add_a_user(job: Expected) -> None:
    job.users["nobody"] = ("2021-07-02 08:59:58.732726", "unknown")


def locate_by_city_alone(job: Expected) -> None:
    job.users["35"] = (job.users["35"][0], "Mountain View")


S = "shardId-000000000000"
BREAKAGES: dict[str, tuple[Callable[[Expected], None], str]] = {
    "a decoder accepts 101 percent": (accept_101, f"enriched {S}/5 should not be there"),
    "a decoder accepts NaN": (accept_nan, f"rejected {S}/6 is missing"),
    "a decoder takes true for a number": (accept_boolean, f"enriched {S}/7 should not be there"),
    "timestamps lose their fraction": (
        drop_fractions,
        f"enriched {S}/1: timestamp is 2021-07-02 08:59:58+00:00 and should be 2021-07-02 08:59:58.732726+00:00",
    ),
    "timestamps lose their zone": (
        forget_the_zone,
        f"enriched {S}/1: insertion_timestamp is 2021-07-02 08:59:58.732754 and should be",
    ),
    "offers start at 60 instead of above": (
        offer_from_60_on,
        f"offer {offer(row(RIGHT.enriched, 2))['offer_id']} should not be there",
    ),
    "offers ignore the event's name": (
        offer_for_any_event,
        f"offer {offer(row(RIGHT.enriched, 4))['offer_id']} should not be there",
    ),
    "the offer_id comes from the user": (offer_id_from_the_user, f"offer {RIGHT.offers[0]['offer_id']} is missing"),
    "an offer has the wrong price": (
        offer_the_wrong_price,
        f"offer {RIGHT.offers[0]['offer_id']}: price is 418.0 and should be 417.97",
    ),
    "an offer has a number in a string": (
        offer_with_a_number_in_a_string,
        f"offer {RIGHT.offers[0]['offer_id']}: percent_viewed is '60.5' and should be 60.5",
    ),
    "an offer has true for product 1": (
        offer_the_product_true,
        f"offer {RIGHT.offers[0]['offer_id']}: product_id is True and should be 1",
    ),
    "an offer is lost": (lose_an_offer, f"offer {RIGHT.offers[0]['offer_id']} is missing"),
    "an offer is sent twice": (repeat_an_offer, f"offer {RIGHT.offers[0]['offer_id']} is there once too often"),
    "partitions follow the event's time": (
        partition_by_event_time,
        f"enriched {S}/12 is in partition 3000/01/01/00 and belongs in 2021/07/02/09",
    ),
    "enriched partitions are in another zone": (
        partition_enriched_in_another_zone,
        f"enriched {S}/4 is in partition 2021/07/03/01 and belongs in 2021/07/02/23",
    ),
    "rejected partitions are in another zone": (
        partition_rejected_in_another_zone,
        f"rejected {S}/8 is in partition 2021/07/02/18 and belongs in 2021/07/02/23",
    ),
    "an enriched hour is not padded": (
        do_not_pad_enriched,
        f"enriched {S}/1 is in partition 2021/07/02/9 and belongs in 2021/07/02/09",
    ),
    "a rejected hour is not padded": (
        do_not_pad_rejected,
        f"rejected {S}/5 is in partition 2021/07/02/9 and belongs in 2021/07/02/09",
    ),
    "names are missing": (lose_the_names, f"enriched {S}/1: name is None and should be 'Ada Lovelace'"),
    "a name goes to the wrong user": (
        give_a_name_to_the_wrong_user,
        f"enriched {S}/3: name is 'Ada Lovelace' and should be 'Grace Hopper'",
    ),
    "a known place is left pending": (
        call_a_known_place_pending,
        f"enriched {S}/3: geo_status is 'pending' and should be 'found'",
    ),
    "region and city are swapped": (
        swap_region_and_city,
        f"enriched {S}/1: region is 'Mountain View' and should be 'California'",
    ),
    "a double went through a float": (
        round_a_double,
        f"enriched {S}/1: additional_data.price is 417.9700012207031 and should be 417.97",
    ),
    "a double became an integer": (
        make_a_double_an_integer,
        f"enriched {S}/1: additional_data.time_on_data is 79 and should be 79.0",
    ),
    "a column is lost": (lose_a_column, f"enriched {S}/1 has no column pixel_id"),
    "an unknown field reaches the lake": (add_a_column, f"enriched {S}/1 has a column unknown nobody asked for"),
    "an enriched row is lost": (lose_an_enriched_row, f"enriched {S}/4 is missing"),
    "a rejected row is lost": (lose_a_rejected_row, f"rejected {S}/8 is missing"),
    "an enriched row is there twice": (write_an_enriched_row_twice, f"enriched {S}/4 is there 2 times"),
    "a rejected row is there twice": (write_a_rejected_row_twice, f"rejected {S}/8 is there 2 times"),
    "an enriched row is rejected as well": (
        reject_an_enriched_row_as_well,
        f"rejected {S}/4 should not be there",
    ),
    "two rows swap their origins": (swap_two_origins, f"enriched {S}/1: click_id is 'at 60' and should be"),
    "a row names another shard": (name_another_shard, "enriched shardId-000000000001/4 should not be there"),
    "a rejected payload is mended": (mend_the_payload, f"rejected {S}/8: payload is"),
    "a rejected payload is text": (read_the_payload_as_text, f"rejected {S}/5: payload is"),
    "a rejection has another reason": (
        give_another_reason,
        f"rejected {S}/8: reason is 'malformed_json' and should be 'not_utf8'",
    ),
    "a rejection names another field": (
        name_another_field,
        f"rejected {S}/5: field is 'percent_viewed' and should be 'additional_data.percent_viewed'",
    ),
    "a rejection names another stage": (
        name_another_stage,
        f"rejected {S}/5: stage is 'decode' and should be 'validate'",
    ),
    "the oldest access wins": (
        oldest_access_wins,
        "user 40: last_access is '2021-07-02 09:00:00.000000' and should be '2021-07-02 09:00:01.000000'",
    ),
    "the last arrival wins": (
        last_arrival_wins,
        "user 40: last_access is '2021-07-02 09:00:00.000000' and should be '2021-07-02 09:00:01.000000'",
    ),
    "the year 3000 is believed": (
        believe_the_year_3000,
        "user 41: last_access is '3000-01-01 00:00:00.000000' and should be '2021-07-02 09:30:00.000000'",
    ),
    "the year 3000 is limited but wins": (
        limit_the_value_but_not_the_choice,
        "user 41: last_access is '2021-07-02 09:07:03.456000' and should be '2021-07-02 09:30:00.000000'",
    ),
    "the first of a tie wins": (
        first_of_a_tie_wins,
        "user 40: location is 'Singapore, SG' and should be 'Mountain View, California, US'",
    ),
    "sequence numbers are compared as text": (
        compare_sequence_numbers_as_text,
        "user 40: location is 'Singapore, SG' and should be 'Mountain View, California, US'",
    ),
    "a user is lost": (lose_a_user, "user 40 is missing"),
    "a user comes from nowhere": (add_a_user, "user nobody should not be there"),
    "a location is a city alone": (
        locate_by_city_alone,
        "user 35: location is 'Mountain View' and should be 'Mountain View, California, US'",
    ),
}


@pytest.mark.parametrize(("break_", "sentence"), BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_job_is_told_apart(break_: Callable[[Expected], None], sentence: str) -> None:
    job = deepcopy(RIGHT)

    break_(job)

    found = differences_of(job)
    assert any(sentence in each for each in found), found


def test_a_right_job_has_no_differences_in_whatever_order_it_wrote() -> None:
    job = Expected(RIGHT.enriched[::-1], RIGHT.rejected[::-1], RIGHT.offers[::-1], dict(reversed(RIGHT.users.items())))

    assert differences_of(deepcopy(job)) == []


def test_one_fault_is_one_sentence() -> None:
    job = deepcopy(RIGHT)
    row(job.enriched, 1)["additional_data"]["price"] = 418.0
    row(job.rejected, 5)["hour"] = "9"

    assert differences_of(job) == [
        f"enriched {S}/1: additional_data.price is 418.0 and should be 417.97",
        f"rejected {S}/5 is in partition 2021/07/02/9 and belongs in 2021/07/02/09",
    ]


def test_a_job_that_wrote_nothing_misses_everything() -> None:
    found = differences(RIGHT, [], [], [], {})

    assert len(found) == len(RECORDS) + len(RIGHT.offers) + len(RIGHT.users)
    assert all(sentence.endswith("is missing") for sentence in found)


def test_an_offer_may_spell_a_double_without_a_point_as_json_does() -> None:
    want = outcome(arrived(1, event(event_name="ViewContent", percent_viewed=87)))
    sent = [want.offers[0] | {"percent_viewed": 87}]

    assert differences(want, want.enriched, want.rejected, sent, want.users) == []


def test_clicks_of_one_id_make_as_many_offers() -> None:
    view = event(event_name="ViewContent", percent_viewed=87)
    want = outcome(arrived(1, view), arrived(2, view))

    found = differences(want, want.enriched, want.rejected, want.offers[:1], want.users)

    assert found == [f"offer {want.offers[0]['offer_id']} is missing"]


def test_after_a_restart_an_offer_may_be_there_again_but_not_changed() -> None:
    job = deepcopy(RIGHT)
    again = replace(job, offers=[*job.offers, dict(job.offers[0])])
    changed = replace(job, offers=[*job.offers, job.offers[0] | {"price": 1.0}])

    assert differences_of(again, offers_may_repeat=True) == []
    assert differences_of(changed, offers_may_repeat=True) == [
        f"offer {RIGHT.offers[0]['offer_id']} should not be there"
    ]
