"""Events gone wrong, in every way we have a name for."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from generator.records import Record

Kind = Callable[[bytes, Random], bytes]
"""Makes of a valid event one that must be rejected. The bytes given are JSON with all the fields."""


def malformed(payload: bytes, rng: Random, kind: str | None = None) -> bytes:
    """Return a variant of a valid event that no decoder may accept: of the given kind, or of any of `ORDINARY`."""
    return KINDS[kind or rng.choice(ORDINARY)](payload, rng)


def mixed(
    records: Iterable[Record],
    share: float,
    rng: Random,
    *,
    kinds: Sequence[str] | None = None,
    tally: Counter[str] | None = None,
) -> Iterator[Record]:
    """Make a share of valid records malformed, evenly spread: of the first n exactly `round(share * n)`, for every n.

    Keys stay those of the originals. Every kind (all of `ORDINARY`, if not given) turns up once before one comes
    again; `tally` counts what was made of which.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share is from 0 to 1, not {share}")
    turns = _in_turn(kinds or ORDINARY, rng)
    so_far = 0
    for number, record in enumerate(records, start=1):
        if round(share * number) == so_far:
            yield record
            continue
        so_far += 1
        kind = next(turns)
        if tally is not None:
            tally[kind] += 1
        yield Record(record.partition_key, KINDS[kind](record.payload, rng))


def _in_turn(kinds: Sequence[str], rng: Random) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))


# Kinds made of bytes


def _cut_off(payload: bytes, rng: Random) -> bytes:
    return payload[: rng.randrange(1, len(payload))]


def _with_inserted(*pieces: bytes) -> Kind:
    """Put one of the pieces anywhere between the first byte and the last."""

    def kind(payload: bytes, rng: Random) -> bytes:
        at = rng.randrange(1, len(payload))
        return payload[:at] + rng.choice(pieces) + payload[at:]

    return kind


def _instead(*payloads: bytes) -> Kind:
    return lambda _, rng: rng.choice(payloads)


# Kinds made of fields


def _without_a_field(payload: bytes, rng: Random) -> bytes:
    event = json.loads(payload)
    del event[rng.choice(list(event))]
    return _json(event)


def _without_a_number(payload: bytes, rng: Random) -> bytes:
    event = json.loads(payload)
    del event["additional_data"][rng.choice(NUMBERS)]
    return _json(event)


def _with(fields: Sequence[str], *literals: str) -> Kind:
    """Replace one of the fields' values, wherever it is nested, by one of the JSON literals, legal or not."""

    def kind(payload: bytes, rng: Random) -> bytes:
        event = json.loads(payload)
        name = rng.choice(fields)
        (event["additional_data"] if name in NUMBERS else event)[name] = _PLACEHOLDER
        return _json(event).replace(_json(_PLACEHOLDER), rng.choice(literals).encode())

    return kind


def _with_number_in_string(payload: bytes, rng: Random) -> bytes:
    event = json.loads(payload)
    name = rng.choice(NUMBERS)
    event["additional_data"][name] = str(event["additional_data"][name])
    return _json(event)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


_PLACEHOLDER: Final = "the value that goes here"
_IDS: Final = ("user_id", "pixel_id", "click_id")
_TIMESTAMPS: Final = ("timestamp", "insertion_timestamp")
_TEXTS: Final = (*_IDS, *_TIMESTAMPS, "event_name", "user_ip")
_MEASURES: Final = ("time_on_data", "percent_viewed", "price")  # DOUBLE
NUMBERS: Final = (*_MEASURES, "product_id")

KINDS: Final[Mapping[str, Kind]] = {
    "empty": _instead(b""),
    "blank": _instead(b" ", b"\t", b"   \r"),
    "truncated": _cut_off,
    "not_utf8": _with_inserted(b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xfe\xff"),
    "byte_order_mark": lambda payload, _: b"\xef\xbb\xbf" + payload,
    "utf16": lambda payload, _: payload.decode().encode("utf-16-le"),
    "nul_byte": _with_inserted(b"\x00"),
    "two_events": lambda payload, rng: payload + rng.choice((b"", b" ", b",")) + payload,
    "trailing_text": lambda payload, rng: payload + rng.choice((b"}", b";", b" -- ok", b"null")),
    "single_quotes": lambda payload, _: payload.replace(b'"', b"'"),
    "trailing_comma": lambda payload, _: payload[:-1] + b",}",
    "form_instead_of_json": _instead(b"user_id=35&event_name=Search", b"<event/>", b"hello", b"\x1f\x8b\x08\x00"),
    "array": lambda payload, _: b"[" + payload + b"]",
    "not_an_object": _instead(b"null", b"35", b'"Search"', b"true", b"[]"),
    "no_fields": _instead(b"{}"),
    "missing_field": _without_a_field,
    "missing_number": _without_a_number,
    "null_field": _with((*_TEXTS, *NUMBERS, "additional_data"), "null"),
    "number_for_text": _with(_TEXTS, "35", "0", "1626091318.73"),
    "object_for_text": _with(_TEXTS, "{}", '["35"]'),
    "text_for_additional_data": _with(("additional_data",), '"{}"', "[]", "79"),
    "number_in_string": _with_number_in_string,
    "boolean_for_number": _with(NUMBERS, "true", "false"),
    "deeply_nested": _with(("user_id", "additional_data"), "[" * 5_000 + "]" * 5_000),
    "nan": _with(NUMBERS, "NaN", "Infinity", "-Infinity"),
    "huge_number": _with(_MEASURES, "1e999", "9" * 400),
    "percent_over_100": _with(("percent_viewed",), "101", "100.1", "3970"),
    "percent_below_0": _with(("percent_viewed",), "-1", "-0.1"),
    "negative_price": _with(("price",), "-417.97", "-1"),
    "negative_time": _with(("time_on_data",), "-79", "-0.5"),
    "fractional_product_id": _with(("product_id",), "5.5", "557246.25"),
    "product_id_over_bigint": _with(("product_id",), str(2**63), str(-(2**63) - 1), "9" * 5_000),
    "unknown_event": _with(("event_name",), '"search"', '"PageView"', '"Search "', '""'),
    "empty_id": _with(_IDS, '""'),
    "long_id": _with(_IDS, f'"{"x" * 129}"', f'"{"é" * 129}"', f'"{"9" * 5_000}"'),
    "bad_ip": _with(("user_ip",), '"999.1.1.1"', '"1.2.3"', '"localhost"', '"1.2.3.4:80"', '"2a02:::1"', '""'),
    "unreadable_timestamp": _with(
        _TIMESTAMPS, '"yesterday"', '"12/07/2021 12:01"', '"2021-02-30 12:01:58"', '"2021-07-12"', '"1626091318"', '""'
    ),
    "timestamp_not_in_utc": _with(_TIMESTAMPS, '"2021-07-12 12:01:58.732726+02:00"', '"2021-07-12T12:01:58-05:30"'),
    "newline_in_text": _with(_IDS, '"35\n"', '"\n"'),
}

ORDINARY: Final = tuple(kind for kind in KINDS if kind != "newline_in_text")
"""The kinds that every publisher can carry; a file of lines cannot hold a newline."""
