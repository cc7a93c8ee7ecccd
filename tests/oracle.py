"""What the job must produce from given records, computed the slow and obvious way from the standard library alone.

Nothing of ours is imported: a mistake in `clickstream/` or `enrichment/` must not be able to hide in here too.
"""

import hashlib
import ipaddress
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
Origin = tuple[str, str]  # shard_id, sequence_number
PlaceRecords = Callable[[str], Any]  # an address to its City record or None: `maxminddb.open_database(path).get`

LARGEST_PAYLOAD = 1_048_576
DEEPEST = 512
EVENT_NAMES = ("Search", "AddToCart", "ViewContent", "Purchase")
PARTITION = ("year", "month", "day", "hour")
CLOCK_TOLERANCE = timedelta(minutes=5)

_ABSENT = object()
_SURROGATE = re.compile("[\ud800-\udfff]")
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:[Zz]|[+-]00:?00)?"
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """One record as the stream hands it over; Kinesis' arrival times are UTC and whole milliseconds."""

    payload: bytes
    arrival: datetime
    shard_id: str
    sequence_number: str

    def __post_init__(self) -> None:
        if self.arrival.utcoffset() != timedelta(0) or self.arrival.microsecond % 1000:
            raise ValueError(f"arrival must be aware, UTC and in whole milliseconds: {self.arrival!r}")

    @property
    def origin(self) -> Origin:
        return self.shard_id, self.sequence_number


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a payload is no event; `field` is a dotted path, None where the payload could not be read at all."""

    stage: str
    reason: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """All that the job must leave behind, rows in the order of the records."""

    enriched: list[Row]
    rejected: list[Row]
    offers: list[Row]
    users: dict[str, tuple[str, str]]  # user_id to (last_access, location)


def expected(records: Iterable[Arrived], places: PlaceRecords, names: Mapping[str, str]) -> Expected:
    """Every record ends in exactly one of `enriched` and `rejected`; an origin may come only once."""
    enriched: list[Row] = []
    rejected: list[Row] = []
    seen: set[Origin] = set()
    for record in records:
        if record.origin in seen:
            raise ValueError(f"two records have the origin {_spelled(record.origin)}")
        seen.add(record.origin)
        event = read(record.payload)
        if isinstance(event, Refusal):
            rejected.append(_rejected_row(record, event))
        else:
            enriched.append(event | place(event["user_ip"], places) | name(event["user_id"], names) | _origin(record))
    return Expected(
        enriched=enriched,
        rejected=rejected,
        offers=[offer(row) for row in enriched if is_offer(row)],
        users=last_accesses(enriched),
    )


# From bytes to an event


def read(payload: bytes) -> Row | Refusal:
    """The event's own columns, or the first thing that is wrong with it."""
    if len(payload) == 0:
        return Refusal("decode", "empty")
    if len(payload) > LARGEST_PAYLOAD:
        return Refusal("decode", "too_large")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        return Refusal("decode", "not_utf8")
    try:
        document = parse(text)
    except (ValueError, RecursionError):
        return Refusal("decode", "malformed_json")
    if not isinstance(document, Members):
        return Refusal("decode", "not_an_object")

    for path, fault in CHECKS:
        value = _at(document, path)
        reason = "missing_field" if value is _ABSENT else fault(value)
        if reason is not None:
            return Refusal("validate", reason, path)

    fields = document.as_dict()
    additional = fields["additional_data"].as_dict()
    return {
        "timestamp": moment(fields["timestamp"]),
        "user_id": fields["user_id"],
        "pixel_id": fields["pixel_id"],
        "click_id": fields["click_id"],
        "insertion_timestamp": moment(fields["insertion_timestamp"]),
        "event_name": fields["event_name"],
        "user_ip": fields["user_ip"],
        "additional_data": {
            "time_on_data": float(additional["time_on_data"].literal),
            "percent_viewed": float(additional["percent_viewed"].literal),
            "product_id": int(additional["product_id"].literal),
            "price": float(additional["price"].literal),
        },
    }


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it was written, so that 5, 5.0 and 5e0 stay apart and no digit is lost."""

    literal: str

    @property
    def is_whole(self) -> bool:
        return not set(self.literal) & set(".eE")


@dataclass(frozen=True, slots=True)
class Members:
    """A JSON object with all its pairs, those that a later pair of the same key replaces as well."""

    pairs: list[tuple[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return dict(self.pairs)


def parse(text: str) -> Any:
    """Read one JSON text as RFC 8259 has it; ValueError or RecursionError otherwise.

    The standard library accepts two things the RFC does not know as text: NaN and Infinity, and half a surrogate
    pair. More than 512 levels of arrays and objects are too deep: the library's own limit depends on the stack.
    """
    document = json.loads(
        text, parse_int=Number, parse_float=Number, parse_constant=_no_number, object_pairs_hook=Members
    )
    unseen = [(document, 1)]
    while unseen:
        value, level = unseen.pop()
        if isinstance(value, list | Members) and level > DEEPEST:
            raise ValueError("too deep")
        if isinstance(value, str) and _SURROGATE.search(value):
            raise ValueError("half a surrogate pair is no character")
        if isinstance(value, list):
            unseen.extend((inner, level + 1) for inner in value)
        if isinstance(value, Members):
            for key, member in value.pairs:
                unseen += [(key, level), (member, level + 1)]
    return document


def _no_number(literal: str) -> Any:
    raise ValueError(f"{literal} is no JSON number")


def _at(document: Members, path: str) -> Any:
    value: Any = document
    for key in path.split("."):
        value = value.as_dict().get(key, _ABSENT)
    return value


# What may be wrong with one field: a reason, or None


def _id_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "wrong_type"
    return None if 1 <= len(value) <= 128 else "bad_length"


def _event_name_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "wrong_type"
    return None if value in EVENT_NAMES else "unknown_event"


def _timestamp_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "wrong_type"
    return None if moment(value) else "bad_timestamp"


def _ip_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "wrong_type"
    if "%" in value:
        return "bad_ip"
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "bad_ip"
    return None


def _object_fault(value: Any) -> str | None:
    return None if isinstance(value, Members) else "wrong_type"


def _from_zero_fault(value: Any) -> str | None:
    if not isinstance(value, Number):
        return "wrong_type"
    return None if 0 <= float(value.literal) < float("inf") else "out_of_range"


def _percentage_fault(value: Any) -> str | None:
    if not isinstance(value, Number):
        return "wrong_type"
    return None if 0 <= float(value.literal) <= 100 else "out_of_range"


def _bigint_fault(value: Any) -> str | None:
    if not isinstance(value, Number) or not value.is_whole:
        return "wrong_type"
    if len(value.literal) > 20:  # a sign and 19 digits hold every signed 64-bit number; int() refuses thousands
        return "out_of_range"
    return None if -(2**63) <= int(value.literal) < 2**63 else "out_of_range"


CHECKS: Sequence[tuple[str, Callable[[Any], str | None]]] = (
    ("timestamp", _timestamp_fault),
    ("user_id", _id_fault),
    ("pixel_id", _id_fault),
    ("click_id", _id_fault),
    ("insertion_timestamp", _timestamp_fault),
    ("event_name", _event_name_fault),
    ("user_ip", _ip_fault),
    ("additional_data", _object_fault),
    ("additional_data.time_on_data", _from_zero_fault),
    ("additional_data.percent_viewed", _percentage_fault),
    ("additional_data.product_id", _bigint_fault),
    ("additional_data.price", _from_zero_fault),
)


def moment(text: str) -> datetime | None:
    """A client's timestamp in UTC, rounded half up on the seventh digit of its fraction; None if it is none."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    fraction = (match[7] or "").ljust(7, "0")
    microseconds = int(fraction[:6]) + (1 if fraction[6] >= "5" else 0)
    try:
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return whole + timedelta(microseconds=microseconds)
    except (ValueError, OverflowError):  # no such day or time of day; past the year 9999
        return None


# What is added to an event


def place(user_ip: str, places: PlaceRecords) -> Row:
    address = ipaddress.ip_address(user_ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    unknown = {"country": None, "region": None, "city": None, "geo_status": "unknown"}
    if not address.is_global or address.is_multicast:
        return unknown
    record = places(str(address))
    country = _within(record, "country", "iso_code")
    if country is None:
        return unknown
    return {
        "country": country,
        "region": _within(record, "subdivisions", 0, "names", "en"),
        "city": _within(record, "city", "names", "en"),
        "geo_status": "found",
    }


def _within(record: Any, *steps: str | int) -> Any:
    for step in steps:
        try:
            record = record[step]
        except (KeyError, IndexError, TypeError):
            return None
    return record


def name(user_id: str, names: Mapping[str, str]) -> Row:
    if user_id in names:
        return {"name": names[user_id], "name_status": "found"}
    return {"name": None, "name_status": "unknown"}


def _origin(record: Arrived) -> Row:
    return {
        "arrival_timestamp": record.arrival,
        "shard_id": record.shard_id,
        "sequence_number": record.sequence_number,
        "year": f"{record.arrival.year:04}",
        "month": f"{record.arrival.month:02}",
        "day": f"{record.arrival.day:02}",
        "hour": f"{record.arrival.hour:02}",
    }


def _rejected_row(record: Arrived, why: Refusal) -> Row:
    return {"payload": record.payload, "stage": why.stage, "reason": why.reason, "field": why.field} | _origin(record)


# What goes out besides the lake


def is_offer(row: Row) -> bool:
    return bool(row["event_name"] == "ViewContent" and row["additional_data"]["percent_viewed"] > 60)


def offer(row: Row) -> Row:
    return {
        "timestamp": spelled_moment(row["timestamp"]),
        "event_name": row["event_name"],
        "percent_viewed": row["additional_data"]["percent_viewed"],
        "product_id": row["additional_data"]["product_id"],
        "price": row["additional_data"]["price"],
        "user_id": row["user_id"],
        "click_id": row["click_id"],
        "offer_id": hashlib.sha256(("offer:" + row["click_id"]).encode()).hexdigest()[:32],
    }


def last_accesses(enriched: Iterable[Row]) -> dict[str, tuple[str, str]]:
    """Each user's newest access, of equally new ones the largest sequence number."""
    of_user: dict[str, list[Row]] = defaultdict(list)
    for row in enriched:
        of_user[row["user_id"]].append(row)
    users = {}
    for user_id, rows in of_user.items():
        newest = max(rows, key=lambda row: (access(row), int(row["sequence_number"])))
        users[user_id] = (spelled_moment(access(newest)), location(newest))
    return users


def access(row: Row) -> datetime:
    """The client's time, but never later than its arrival and some tolerance: one shopper may live in the year 3000."""
    latest: datetime = row["arrival_timestamp"] + CLOCK_TOLERANCE
    claimed: datetime = row["timestamp"]
    return min(claimed, latest)


def location(row: Row) -> str:
    if row["geo_status"] == "unknown":
        return "unknown"
    return ", ".join(part for part in (row["city"], row["region"], row["country"]) if part is not None)


def spelled_moment(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(" ", "microseconds")


# The comparison


def differences(
    want: Expected,
    enriched: Iterable[Row],
    rejected: Iterable[Row],
    offers: Iterable[Row],
    users: Mapping[str, tuple[str, str]],
    *,
    offers_may_repeat: bool = False,
) -> list[str]:
    """One sentence for each thing missing, extra, repeated, different or in a wrong partition; empty when all is well.

    Types count in the lake: 87 is not 87.0 there, and a timestamp without a zone is wrong. Offers are JSON, where a
    double may be spelled 87. `offers_may_repeat` is for runs with a restart: that sink is at-least-once.
    """
    return [
        *_row_differences("enriched", want.enriched, enriched),
        *_row_differences("rejected", want.rejected, rejected),
        *_offer_differences(want.offers, offers, offers_may_repeat),
        *_user_differences(want.users, users),
    ]


def by_origin(rows: Iterable[Row]) -> dict[Origin, list[Row]]:
    found: dict[Origin, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.get("shard_id", ""), row.get("sequence_number", "")].append(row)
    return dict(found)


def _row_differences(table: str, want: Iterable[Row], got: Iterable[Row]) -> list[str]:
    wanted = {origin: row for origin, [row] in by_origin(want).items()}
    found = by_origin(got)
    sentences = []
    for origin, row in wanted.items():
        rows = found.get(origin, [])
        label = f"{table} {_spelled(origin)}"
        if not rows:
            sentences.append(f"{label} is missing")
        if len(rows) > 1:
            sentences.append(f"{label} is there {len(rows)} times")
        for one in rows:
            if _partition(one) != _partition(row):
                sentences.append(f"{label} is in partition {_partition(one)} and belongs in {_partition(row)}")
            sentences += _column_differences(label, _flat(row), _flat(one))
    sentences += [f"{table} {_spelled(origin)} should not be there" for origin in found if origin not in wanted]
    return sentences


def _offer_differences(want: Iterable[Row], got: Iterable[Row], may_repeat: bool) -> list[str]:
    """Offers have no origin, and clicks that share a click_id share an offer_id: those are compared as a group."""
    wanted, found = _by_offer_id(want), _by_offer_id(_with_doubles(one) for one in got)
    sentences = []
    for offer_id in wanted | found:
        label = f"offer {offer_id}"
        missing, extra = list(wanted.get(offer_id, [])), []
        for one in found.get(offer_id, []):
            twin = _twin(one, missing)
            if twin is not None:
                missing.remove(twin)
            elif _twin(one, wanted.get(offer_id, [])) is None:
                extra.append(one)
            elif not may_repeat:
                sentences.append(f"{label} is there once too often")
        while missing and extra:
            sentences += _column_differences(label, missing.pop(), extra.pop())
        sentences += [f"{label} is missing" for _ in missing]
        sentences += [f"{label} should not be there" for _ in extra]
    return sentences


def _by_offer_id(offers: Iterable[Row]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for one in offers:
        found[one.get("offer_id")].append(one)
    return dict(found)


def _twin(offer: Row, among: Iterable[Row]) -> Row | None:
    return next((each for each in among if not _column_differences("", each, offer)), None)


def _with_doubles(offer: Row) -> Row:
    doubles = ("percent_viewed", "price")
    return offer | {column: float(offer[column]) for column in doubles if type(offer.get(column)) is int}


def _user_differences(want: Mapping[str, tuple[str, str]], got: Mapping[str, tuple[str, str]]) -> list[str]:
    sentences = []
    for user_id, right in want.items():
        if user_id in got:
            there = dict(zip(("last_access", "location"), got[user_id], strict=True))
            should = dict(zip(("last_access", "location"), right, strict=True))
            sentences += _column_differences(f"user {user_id}", should, there)
        else:
            sentences.append(f"user {user_id} is missing")
    sentences += [f"user {user_id} should not be there" for user_id in got if user_id not in want]
    return sentences


def _column_differences(label: str, want: Row, got: Row) -> list[str]:
    sentences = []
    for column, right in want.items():
        there = got.get(column, _ABSENT)
        if there is _ABSENT:
            sentences.append(f"{label} has no column {column}")
        elif not _same(right, there):
            sentences.append(f"{label}: {column} is {_short(there)} and should be {_short(right)}")
    sentences += [f"{label} has a column {column} nobody asked for" for column in got if column not in want]
    return sentences


def _same(right: Any, there: Any) -> bool:
    """Python finds 87 == 87.0 and True == 1; the lake does not. A pandas Timestamp is a datetime and may pass."""
    return isinstance(there, type(right)) and not isinstance(there, bool) and bool(there == right)


def _flat(row: Row) -> Row:
    """Nested columns by their dotted path, and no partition columns: those are compared as one."""
    flat: Row = {}
    for column, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{column}.{inner}": each for inner, each in value.items()}
        elif column not in PARTITION:
            flat[column] = value
    return flat


def _partition(row: Row) -> str:
    return "/".join(str(row.get(column)) for column in PARTITION)


def _spelled(origin: Origin) -> str:
    return "/".join(map(str, origin))


def _short(value: Any) -> str:
    spelled = str(value) if isinstance(value, datetime) else repr(value)
    return spelled if len(spelled) <= 100 else f"{spelled[:80]}… ({len(spelled)} characters)"
