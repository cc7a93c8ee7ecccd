"""Whose a record is, whatever shape it is in."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickstream.person import Person
from tests.events import payload

THEIRS = {
    "an event": payload(user_id="35"),
    "a number": payload(user_id=35),
    "escaped": b'{"user_id": "\\u0033\\u0035"}',
    "an escaped key": b'{"us\\u0065r_id": "35"}',
    "the first of two": b'{"user_id": "35", "user_id": "7"}',
    "the last of two": b'{"user_id": "7", "user_id": "35"}',
    "cut off after it": b'{"timestamp": "2021-07-12", "user_id": "35", "pix',
    "cut off in it": b'{"user_id": "35',
    "unquoted": b"{user_id: 35}",
    "single quotes": b"{'user_id': '35'}",
    "JSON in a string": json.dumps(payload(user_id="35").decode()).encode(),
    "in an array": b"[" + payload(user_id="35") + b"]",
    "another key, broken": b'{"customer": "35", ',
    "not UTF-8": b'\xff{"user_id": "35"}',
    "UTF-16": payload(user_id="35").decode().encode("utf-16"),
    "two in one": payload(user_id="7") + payload(user_id="35"),
}
NOT_THEIRS = {
    "another's": payload(user_id="351"),
    "an id that ends so": payload(user_id="135"),
    "a price": payload(user_id="7", price=35),
    "another field": payload(user_id="7", pixel_id="35"),
    "another's, who mentions them": b'{"user_id": "7", "friend": {"user_id": "35"}}',
    "a boolean": b'{"user_id": true}',
    "a longer id, broken": b'{"user_id": "351", "pix',
    "a price, broken": b'{"user_id": "7", "price": 35',
    "nothing": b"",
}


@pytest.mark.parametrize("record", THEIRS.values(), ids=THEIRS.keys())
def test_a_record_that_names_them_is_theirs(record: bytes) -> None:
    assert Person("35").owns(record)


@pytest.mark.parametrize("record", NOT_THEIRS.values(), ids=NOT_THEIRS.keys())
def test_a_record_that_does_not_is_not(record: bytes) -> None:
    assert not Person("35").owns(record)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128), st.booleans(), st.integers(0, 40))
def test_any_id_is_found_in_their_events_also_in_broken_ones(user_id: str, ascii_only: bool, cut: int) -> None:
    record = json.dumps({"user_id": user_id, "user_ip": "8.8.8.8", "rest": "x" * 40}, ensure_ascii=ascii_only).encode()

    assert Person(user_id).owns(record)
    assert Person(user_id).owns(record[: len(record) - cut])


@given(st.binary(max_size=200), st.text(min_size=1, max_size=5))
def test_no_bytes_are_too_broken_to_be_judged(record: bytes, user_id: str) -> None:
    Person(user_id).owns(record)


def test_deeply_nested_brackets_are_judged_too() -> None:
    assert not Person("35").owns(b'{"user_id":' * 5000)
    assert not Person("35").owns(b'{"user_id": "7", "user_id": ' + b"[" * 5000)


def test_rows_are_told_apart_as_records_are_one_by_one() -> None:
    records = [*THEIRS.values(), None, *NOT_THEIRS.values()]
    table = pa.table({"payload": pa.chunked_array([pa.array(records[:5], pa.binary()), pa.array(records[5:])])})

    theirs = Person("35").rows(table)

    assert theirs.to_pylist() == [True] * len(THEIRS) + [False] * (1 + len(NOT_THEIRS))
    assert Person("35").addresses(table.filter(theirs)) == {"111.33.64.227"}


def test_rows_with_a_user_id_are_told_apart_by_it() -> None:
    table = pa.table({"user_id": ["35", None, "7", "135"], "user_ip": ["8.8.8.8", "1.1.1.1", None, "9.9.9.9"]})

    theirs = Person("35").rows(table)

    assert theirs.to_pylist() == [True, False, False, False]
    assert Person("35").addresses(table.filter(theirs)) == {"8.8.8.8"}


def test_an_empty_table_has_no_rows_of_theirs() -> None:
    assert Person("35").rows(pa.table({"payload": pa.array([], pa.binary())})).to_pylist() == []
    assert Person("35").rows(pa.table({"count": [1, 2]})).to_pylist() == [False, False]
