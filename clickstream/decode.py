"""Bytes become an event, or a reason why not."""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Raw, Struct, inspect

from clickstream.event import MAX_DEPTH, MAX_EVENT_BYTES, Event


class Stage(StrEnum):
    """Where in the job a record was turned away."""

    DECODE = "decode"
    VALIDATE = "validate"


class Reason(StrEnum):
    """Why a record was turned away; one word an analyst can group by."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_LENGTH = "bad_length"
    UNKNOWN_EVENT = "unknown_event"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_IP = "bad_ip"
    OUT_OF_RANGE = "out_of_range"


class Rejected(Struct, frozen=True):
    """Why a record is not an event. `field` is the dotted path of the first wrong field, if it is a field's fault."""

    stage: Stage
    reason: Reason
    field: str | None = None


_IN_UTC: Final = (None, UTC)
_EVENT: Final = msgspec.json.Decoder(Event)
_ANYTHING: Final = msgspec.json.Decoder(Raw)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)  # ValueError: an integer of thousands of digits


def decode_all(payloads: Sequence[bytes]) -> tuple[list[Event], dict[int, Rejected]]:
    """Read JSON records: the events in order, and for each other row why it is none, never an exception.

    The typed decoder settles nearly every record in one pass. What it refuses is read again field by field, in the
    description's order, so that the first wrong field can be named. That slow reading has the last word: of a
    repeated key only the last one counts, even if an earlier one is wrong.
    """
    decoded = _quickly(payloads)
    unfit = {address for address in {event.user_ip for event in decoded if event is not None} if not is_ip(address)}
    rejected = {}
    for row in [row for row, event in enumerate(decoded) if event is None or (unfit and event.user_ip in unfit)]:
        slowly = decode_slowly(payloads[row])
        decoded[row] = slowly if isinstance(slowly, Event) else None
        if isinstance(slowly, Rejected):
            rejected[row] = slowly
    return [event for event in decoded if event is not None], rejected


def decode(payload: bytes) -> Event | Rejected:
    """Read one JSON record."""
    events, rejected = decode_all([payload])
    return rejected[0] if rejected else events[0]


def _quickly(payloads: Sequence[bytes]) -> list[Event | None]:
    """Read what is in order but for its address, which is looked at once however many events have it."""
    decode_one = _EVENT.decode
    decoded = []
    for payload in payloads:  # in one function: a call for each costs a tenth of its decoding
        event = None
        if (payload.isascii() and len(payload) <= _SURELY_SHALLOW) or _is_readable(payload):
            try:
                event = decode_one(payload)
                if not (event.timestamp.tzinfo is event.insertion_timestamp.tzinfo is None or _is_in_utc(event)):
                    event = None
            except _UNREADABLE:
                event = None
        decoded.append(event)
    return decoded


def decode_slowly(payload: bytes) -> Event | Rejected:
    """Decide as `decode` does, without the shortcut: ten times slower, and able to say what is wrong."""
    if not payload:
        return Rejected(Stage.DECODE, Reason.EMPTY)
    if len(payload) > MAX_EVENT_BYTES:
        return Rejected(Stage.DECODE, Reason.TOO_LARGE)
    if not _is_utf8(payload):
        return Rejected(Stage.DECODE, Reason.NOT_UTF8)
    if not _is_json(payload):
        return Rejected(Stage.DECODE, Reason.MALFORMED_JSON)
    try:
        fields = _OBJECT.decode(payload)
    except msgspec.ValidationError:
        return Rejected(Stage.DECODE, Reason.NOT_AN_OBJECT)
    event: Event | Rejected = _DESCRIBED.read_object(fields)
    return event


def is_ip(text: str) -> bool:
    """Say whether this is an IPv4 or IPv6 address as `inet_pton` reads it: no leading zeros, no scope id."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL character
        return False
    return True


def is_utc(moment: datetime) -> bool:
    """Say whether a timestamp is in UTC: it names no zone, Z, or an offset of nothing."""
    return moment.tzinfo in _IN_UTC


def _is_in_utc(event: Event) -> bool:
    return is_utc(event.timestamp) and is_utc(event.insertion_timestamp)


def _is_readable(payload: bytes) -> bool:
    return len(payload) <= MAX_EVENT_BYTES and _is_utf8(payload) and not _is_too_deep(payload)


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json(payload: bytes) -> bool:
    try:
        _ANYTHING.decode(payload)
    except _UNREADABLE:
        return False
    return not _is_too_deep(payload)


_SURELY_SHALLOW: Final = 2 * MAX_DEPTH  # bytes: each level takes two
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def _is_too_deep(payload: bytes) -> bool:
    """Say whether arrays and objects are in each other deeper than `MAX_DEPTH`; text that is no JSON may be either."""
    if len(payload) <= _SURELY_SHALLOW or payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH:
        return False  # counting would cost each event a quarter of its decoding
    brackets = np.frombuffer(_STRING.sub(b"", payload).translate(None, _NO_BRACKETS), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return bool(np.cumsum(np.where(opens, 1, -1)).max(initial=0) > MAX_DEPTH)


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of the description, ready to be read alone, or for an object with the fields inside it."""

    path: str
    kinds: tuple[str, ...]
    unfit: Reason
    decoder: msgspec.json.Decoder[Any] | None = None
    fits: Callable[[Any], bool] = lambda _: True
    cls: Callable[..., Struct] = Struct
    inside: tuple[tuple[str, "_Field"], ...] = ()

    def read(self, raw: Raw | None) -> Any:
        """Return the field's value, or `Rejected` naming what is wrong with it."""
        if raw is None:
            return self._rejected(Reason.MISSING_FIELD)
        if _json_kind(bytes(raw)) not in self.kinds:
            return self._rejected(Reason.WRONG_TYPE)
        if self.decoder is None:
            return self.read_object(_OBJECT.decode(raw))
        try:
            value = self.decoder.decode(raw)
        except _UNREADABLE:
            return self._rejected(self.unfit)
        return value if self.fits(value) else self._rejected(self.unfit)

    def read_object(self, fields: dict[str, Raw]) -> Any:
        """Build the object out of its fields; the first wrong one makes all of it `Rejected`."""
        values = {}
        for name, field in self.inside:
            values[name] = value = field.read(fields.get(name))
            if isinstance(value, Rejected):
                return value
        return self.cls(**values)

    def _rejected(self, reason: Reason) -> Rejected:
        return Rejected(Stage.VALIDATE, reason, self.path)


def _json_kind(raw: bytes) -> str:
    """Name the JSON type of a well-formed value."""
    if raw[0] in b"-0123456789":
        return "integer" if raw.removeprefix(b"-").isdigit() else "number"
    return {b'"': "string", b"{": "object", b"[": "array"}.get(raw[:1], "literal")


def _field(described: inspect.Type, path: str = "") -> _Field:  # noqa: PLR0911  # a table, one line a type
    """Derive how to read a field, and what to say when it does not fit, from its type in the description."""
    match described:
        case inspect.StructType(cls=cls, fields=fields):
            inside = tuple((f.encode_name, _field(f.type, f"{path}.{f.name}".lstrip("."))) for f in fields)
            return _Field(path, ("object",), Reason.WRONG_TYPE, cls=cls, inside=inside)
        case inspect.Metadata(extra={"format": "ip"}):
            return _Field(path, ("string",), Reason.BAD_IP, msgspec.json.Decoder(str), fits=is_ip)
        case inspect.DateTimeType():
            return _Field(path, ("string",), Reason.BAD_TIMESTAMP, msgspec.json.Decoder(datetime), fits=is_utc)
        case inspect.LiteralType(values=names):
            return _Field(path, ("string",), Reason.UNKNOWN_EVENT, msgspec.json.Decoder(str), fits=names.__contains__)
        case inspect.StrType(min_length=low, max_length=high):
            limits = Annotated[str, msgspec.Meta(min_length=low, max_length=high)]
            return _Field(path, ("string",), Reason.BAD_LENGTH, msgspec.json.Decoder(limits))
        case inspect.IntType(ge=low, le=high):
            integer = Annotated[int, msgspec.Meta(ge=low, le=high)]
            return _Field(path, ("integer",), Reason.OUT_OF_RANGE, msgspec.json.Decoder(integer))
        case inspect.FloatType(ge=low, le=high):
            number = Annotated[float, msgspec.Meta(ge=low, le=high)]
            return _Field(path, ("number", "integer"), Reason.OUT_OF_RANGE, msgspec.json.Decoder(number))
        case _:
            raise TypeError(f"decode has no rule yet for {path}: {described}")


_DESCRIBED: Final = _field(inspect.type_info(Event))
