"""What an answer of ipinfo.io says; all of it may be rubbish."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from clickstream.place import Place

MAX_NAME: Final = 128  # characters; a longer region or city is none

_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, ValueError)  # ValueError: an integer of thousands of digits


class _Location(Struct):
    country: str | None = None  # a code; a name where there is a `country_code`
    country_code: str | None = None
    region: str | None = None
    city: str | None = None


class _Entry(_Location, kw_only=True):
    """What is said of one address: flat as ipinfo.io says it, or with a `geo` as api.ipinfo.io does."""

    ip: str
    geo: _Location | None = None
    error: Any = None


_ENTRIES: Final = msgspec.json.Decoder(dict[str, Raw])
_ENTRY: Final = msgspec.json.Decoder(_Entry)


def read_batch(answer: bytes, addresses: Sequence[str]) -> dict[str, Place | None]:
    """Read the answer to a batch, an object by address; what cannot be understood is left out."""
    try:
        entries: Mapping[str, Raw] = _ENTRIES.decode(answer)
    except _UNREADABLE:
        return {}
    read = [(address, _read(entries[address])) for address in addresses if address in entries]
    return {address: _place(entry) for address, entry in read if entry is not None}


def read_single(answer: bytes, address: str) -> dict[str, Place | None]:
    """Read the answer to a look-up of one address; nothing if it cannot be understood."""
    entry = _read(answer)
    return {} if entry is None else {address: _place(entry)}


def _read(said: bytes | Raw) -> _Entry | None:
    """Return None for an error and for what cannot be understood."""
    try:
        entry = _ENTRY.decode(said)
    except _UNREADABLE:
        return None
    return None if entry.error else entry


def _place(entry: _Entry) -> Place | None:
    """Return None if there is no country, as for a bogon."""
    location = entry.geo or entry
    country = location.country_code or location.country
    if not country or not _COUNTRY.fullmatch(country):
        return None
    return Place(country, _name(location.region), _name(location.city))


def _name(text: str | None) -> str | None:
    stripped = (text or "").strip()
    return stripped if stripped.isprintable() and 0 < len(stripped) <= MAX_NAME else None
