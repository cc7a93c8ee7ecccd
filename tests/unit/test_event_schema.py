"""What the front door lets in: never less than the job accepts, and not much more."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from clickstream.decode import Reason, Rejected, decode
from clickstream.event import Event
from deploy.event_schema import batch_schema, event_schema
from tests.events import EXAMPLE, event

ONE = Draft4Validator(event_schema())
MANY = Draft4Validator(batch_schema())
SEEN = {Reason.NOT_AN_OBJECT, Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.BAD_LENGTH, Reason.UNKNOWN_EVENT}

texts = st.text(max_size=3) | st.sampled_from(["x" * 128, "x" * 129, "ü" * 128, "1.1.1.1", "2021-07-12 12:01:58"])
numbers = (
    st.integers(-(2**64), 2**64) | st.integers(-1, 101) | st.floats(allow_nan=False, allow_infinity=False)
)  # JSON has no word for the others
anything = st.none() | st.booleans() | texts | numbers | st.just({}) | st.just([])
wrong = st.dictionaries(
    st.sampled_from([*EXAMPLE, *EXAMPLE["additional_data"], "something"]),  # type: ignore[misc]
    anything | st.just(...),
    max_size=3,
)


def posted(changes: dict[str, Any]) -> dict[str, Any]:
    """Change an event, and what is inside its additional_data before additional_data itself."""
    inside = {name: value for name, value in changes.items() if name in EXAMPLE["additional_data"]}  # type: ignore[operator]
    outside = {name: value for name, value in changes.items() if name not in inside}
    changed = {**event(**inside), **outside}
    return {name: value for name, value in changed.items() if value is not ...}


def test_both_schemas_are_of_draft_4() -> None:
    Draft4Validator.check_schema(event_schema())
    Draft4Validator.check_schema(batch_schema())


@given(wrong)
def test_what_decode_accepts_is_never_refused(changes: dict[str, Any]) -> None:
    record = posted(changes)

    if isinstance(decode(json.dumps(record).encode()), Event):
        assert ONE.is_valid(record)
        assert MANY.is_valid([record])


@given(wrong)
def test_what_decode_finds_missing_mistyped_misnamed_or_too_long_is_refused(changes: dict[str, Any]) -> None:
    record = posted(changes)
    verdict = decode(json.dumps(record).encode())

    if isinstance(verdict, Rejected) and verdict.reason in {*SEEN, Reason.OUT_OF_RANGE}:
        assert not ONE.is_valid(record)
        assert not MANY.is_valid([EXAMPLE, record])


@given(anything)
def test_what_is_no_object_is_refused(value: Any) -> None:
    assert not ONE.is_valid(value)


@pytest.mark.parametrize("field", [*EXAMPLE, *EXAMPLE["additional_data"]])  # type: ignore[misc]
@pytest.mark.parametrize("value", [..., None, True, [], "\n" * 129], ids=str)
def test_every_field_is_looked_at(field: str, value: Any) -> None:
    free_text = {"timestamp", "insertion_timestamp", "user_ip"} if isinstance(value, str) else set()

    assert ONE.is_valid(event(**{field: value})) is (field in free_text)


@pytest.mark.parametrize(
    "changes",
    [
        {"percent_viewed": 100.1},
        {"percent_viewed": -1},
        {"time_on_data": -0.5},
        {"price": -1},
        {"product_id": 2**63},
        {"product_id": -(2**63) - 1},
        {"product_id": 5.5},
        {"event_name": "search"},
        {"user_id": ""},
    ],
    ids=str,
)
def test_a_value_that_no_event_has_is_refused(changes: dict[str, Any]) -> None:
    assert not ONE.is_valid(event(**changes))


@pytest.mark.parametrize(
    "changes", [{"user_ip": "256.1.1.1"}, {"timestamp": "yesterday"}, {"insertion_timestamp": ""}], ids=str
)
def test_what_is_no_address_or_no_time_passes_and_the_job_rejects_it(changes: dict[str, Any]) -> None:
    record = event(**changes)

    assert ONE.is_valid(record)
    assert isinstance(decode(json.dumps(record).encode()), Rejected)


def test_unknown_fields_are_let_in() -> None:
    assert ONE.is_valid(event(something={"else": [None]}))


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, True), (500, True), (501, False)])
def test_a_batch_has_1_to_500_events(count: int, fits: bool) -> None:
    assert MANY.is_valid([EXAMPLE] * count) is fits


def test_one_bad_event_spoils_the_batch() -> None:
    assert not MANY.is_valid([EXAMPLE, event(user_id=35), EXAMPLE])
