"""Records made to break a reader, through the decoder and the whole batch function: `make fuzz`, by the million.

Every other property of the unit tests is run with as many examples.
"""

import json
import os
import time
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from clickstream.decode import Rejected, decode, decode_slowly
from clickstream.event import MAX_EVENT_BYTES
from connectors.testing import InMemoryShared
from tests import oracle
from tests.events import ARRIVAL, EXAMPLE, arrived, offered, payload, stored
from tests.unit.test_process import NAMES, RECORDS, process

FIELDS = [*EXAMPLE, *EXAMPLE["additional_data"]]  # type: ignore[misc]
WELL_FORMED = {name: json.dumps(value) for name, value in EXAMPLE.items() if name != "additional_data"}
WELL_FORMED |= {name: json.dumps(value) for name, value in EXAMPLE["additional_data"].items()}  # type: ignore[attr-defined]

deep = st.tuples(st.sampled_from(["[", '{"a":', '[{"a":']), st.integers(1, 3000), st.booleans()).map(
    lambda t: t[0] * t[1] + "1" + ("".join({"[": "]", "{": "}"}[c] for c in reversed(t[0]) if c in "[{") * t[1]) * t[2]
)
digits = st.integers(1, 5000).map(lambda n: "9" * n) | st.integers(-(2**70), 2**70).map(str)
huge = st.one_of(
    digits,
    digits.map("-{}".format),
    st.tuples(st.integers(-400, 400), st.sampled_from("eE")).map(lambda t: f"1{t[1]}{t[0]}"),
    digits.map("0.{}".format),
    digits.map("1e{}".format),
    st.sampled_from(
        ["-0", "-0.0", "00", "01", "1.", ".5", "+1", "0x1", "NaN", "Infinity", "-Infinity", "1e", "1e+", "--1"]
    ),
    st.sampled_from(["9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"]),
    st.sampled_from(["100", "100.0", "100.00000000000001", "100.000000000000001", "1e2", "1E+2", "1000e-1", "4e-324"]),
)
units = st.sampled_from(
    ["\\ud800", "\\udfff", "\\ud83d\\ude00", "\\u0000", "\\u00e9", "é", "😀", "\\n", "\\/", '\\"', "\\x", "\\u12",
     "\x00", "\x1f", "\x7f", "\u2028", "a", "::1", "2021-07-12 12:01:58", "1.1.1.1", "ViewContent"]
)  # fmt: skip
text = st.lists(units, max_size=6).map(lambda some: '"' + "".join(some) + '"')
value = st.one_of(
    huge,
    text,
    deep,
    st.sampled_from(["true", "false", "null", "{}", "[]", ""]),
    st.sampled_from(list(WELL_FORMED.values())),
)
key = st.sampled_from(FIELDS) | st.lists(units, max_size=2).map("".join)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """An event by the letter of JSON, with some of its values replaced, keys repeated, and bytes around it."""
    some = {name: draw(value) if draw(st.integers(0, 9)) == 0 else spelled for name, spelled in WELL_FORMED.items()}
    inside = [(name, some[name]) for name in EXAMPLE["additional_data"]]  # type: ignore[attr-defined]
    fields = [(name, some[name]) for name in EXAMPLE if name != "additional_data"]
    for extra in draw(st.lists(st.tuples(key, value), max_size=2)):
        (inside if draw(st.booleans()) else fields).insert(draw(st.integers(0, 4)), extra)
    fields.insert(draw(st.integers(0, len(fields))), ("additional_data", _object(inside)))
    if draw(st.integers(0, 9)) == 0:
        fields.append(draw(st.sampled_from(fields)))
    around = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\t\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff", b",", b"{}"])
    record = draw(around) + _object(fields).encode(errors="surrogatepass") + draw(around)
    padding = draw(st.sampled_from([0] * 40 + [MAX_EVENT_BYTES - 1, MAX_EVENT_BYTES, MAX_EVENT_BYTES + 1]))
    return record + draw(st.sampled_from([b" ", b"\x00", b"1"])) * max(0, padding - len(record))


def _object(fields: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{spelled}' for name, spelled in fields) + "}"


@settings(deadline=None)  # the oracle takes a second for a mebibyte of braces
@given(hostile() | value.map(str.encode))
@example(b"\x00" * MAX_EVENT_BYTES)
@example(b"[" * MAX_EVENT_BYTES)
@example(b'{"a":' * (MAX_EVENT_BYTES // 5))
@example(b"9" * MAX_EVENT_BYTES)
@example(b'"' + b"\\ud800" * 1000 + b'"')
def test_a_hostile_record_is_judged_as_the_oracle_does_by_both_readings(record: bytes) -> None:
    ours, theirs = decode(record), oracle.read(record)

    assert decode_slowly(record) == ours
    if isinstance(theirs, oracle.Refusal):
        assert isinstance(ours, Rejected)
        assert (ours.stage, ours.reason, ours.field) == (theirs.stage, theirs.reason, theirs.field)
    else:
        assert not isinstance(ours, Rejected)


@settings(deadline=None)
@given(st.lists(hostile() | st.binary(max_size=3) | st.just(payload(user_id="7")), max_size=6))
def test_a_batch_of_hostile_records_comes_out_as_the_oracle_says(batch: list[bytes]) -> None:
    _comes_out_as_the_oracle_says(batch)


RECORDS_AT_RANDOM = 20 * int(os.environ.get("FUZZ", "5000"))
SEED = int(os.environ.get("SEED", time.time_ns() % 2**32))


def test_records_made_up_at_random_come_out_as_the_oracle_says() -> None:
    """Twenty times as many as Hypothesis tries, and none of them made smaller: SEED=… makes the same ones again."""
    rng = Random(SEED)
    for _ in range(max(1, RECORDS_AT_RANDOM // 500)):
        _comes_out_as_the_oracle_says([_at_random(rng) for _ in range(500)])


def _at_random(rng: Random) -> bytes:
    """An event with a few values exchanged for others, keys repeated, bytes changed, or nothing of that."""
    some = {name: rng.choice(SPELLED) if rng.random() < 0.04 else spelled for name, spelled in WELL_FORMED.items()}
    inside = [(name, some[name]) for name in EXAMPLE["additional_data"]]  # type: ignore[attr-defined]
    fields = [(name, some[name]) for name in EXAMPLE if name != "additional_data"]
    while rng.random() < 0.2:
        (inside if rng.random() < 0.5 else fields).append((rng.choice(FIELDS), rng.choice(SPELLED)))
    fields.insert(rng.randrange(len(fields)), ("additional_data", _object(inside)))
    record = bytearray(_object(fields).encode(errors="surrogatepass"))
    while rng.random() < 0.2:
        at = rng.randrange(len(record))
        record[at : at + rng.randrange(3)] = rng.choice(
            [b"", b"\x00", b"\xff", b'"', b"\\", b"}", b"{", b",", b"9", b"\xe9"]
        )
    return bytes(record)


DAMAGE = [b"", b"\x00", b"\xff", b'"', b"\\", b"}", b"{", b",", b"9", b"\xe9"]
SPELLED = [
    *WELL_FORMED.values(),
    *(
        "null",
        "true",
        "{}",
        "[]",
        "",
        "-0",
        "-0.0",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "-Infinity",
        "1e400",
        "1e-400",
        "1E2",
    ),
    *("100", "100.0", "100.00000000000001", "101", "-1", "1e1", "5e-324", "9" * 400, "1" * 5000, "0." + "3" * 400),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *(
        r'"\ud800"',
        r'"\ud83d\ude00"',
        r'"\u0000"',
        r'"\x"',
        '"\x00"',
        '""',
        '"é"',
        '"ViewContent"',
        '"Search "',
        '"view"',
    ),
    *('"::1"', '"::ffff:8.8.8.8"', '"1.1.1.01"', '"1.1.1"', '"fe80::1%eth0"', '"8.8.8.8"', '"' + "x" * 128 + '"'),
    *('"' + "x" * 129 + '"', '"' + "😀" * 128 + '"', '"2021-02-29 12:00:00"', '"2021-07-12T12:01:58Z"', '"35"', '"7"'),
    *('"2021-07-12 12:01:58+00:00"', '"2021-07-12 12:01:58+02:00"', '"9999-12-31 23:59:59.9999999"', '"2021-07-12"'),
    *("[" * 600 + "1" + "]" * 600, '{"a":' * 510 + "1" + "}" * 510, "[" * 5000, '[{"user_id": "1"}]'),
]


def _comes_out_as_the_oracle_says(batch: list[bytes]) -> None:
    shared = InMemoryShared(NAMES)

    columns = process(shared)(arrived(batch))

    accepted = [oracle.Arrived(one, ARRIVAL, "shardId-000000000000", str(n)) for n, one in enumerate(batch, start=1)]
    expected = oracle.expected(accepted, RECORDS.get, NAMES)
    tables = {table: some.to_pylist() for table, some in stored(columns).items()}
    users = {u: (k["last_access"], k["location"]) for u, k in shared.users.items() if "last_access" in k}
    problems = oracle.differences(expected, tables["enriched"], tables["rejected"], offered(columns), users)
    assert problems == [], f"SEED={SEED}"
