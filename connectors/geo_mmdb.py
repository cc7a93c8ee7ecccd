"""Where addresses are, out of a MaxMind database file."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from os import PathLike
from pathlib import Path
from typing import Final

import maxminddb

from clickstream.errors import Refused
from clickstream.place import Place
from connectors.mmdb_tree import Tree

_BROKEN: Final = (maxminddb.InvalidDatabaseError, UnicodeDecodeError)
_FIRST_PUBLIC: Final = (IPv4Address("1.0.0.0"), IPv6Address("2000::"))
_FIRST_NETWORKS: Final = 10_000  # one of so many has a country, if any has
_RECORDS_AT_HAND: Final = 200_000


class Mmdb:
    """Reads GeoLite2 or GeoIP2, City or Country; of a Country file, places have neither region nor city.

    Asking twice is harmless, and nothing here is slow: the file is mapped into memory and shared by all processes that
    read it. A file that is missing, broken or knows no countries is `Refused` when it is opened, so that a wrong one
    stops the job at its start; so is one found broken later. Put a newer file in its place by renaming, and restart.
    """

    metered = False

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._reader = maxminddb.open_database(self._path)  # the C extension, wherever its wheel has one
            about = self._reader.metadata()
            self._tree = Tree(self._path, about)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            raise self._refused(f"cannot be opened as a MaxMind database ({_reason(error)})") from None
        self._ipv4_only = about.ip_version == 4
        self._places: dict[int, Place | None] = {}  # by record
        try:
            places = any(_place(record) for record in self._first_records())
        except (maxminddb.InvalidDatabaseError, ValueError):
            places = False
        if not places:
            self._reader.close()
            raise self._refused(f"is broken or of no use, a {about.database_type!r} without a country.iso_code in it")

    def find(self, addresses: Sequence[str]) -> Mapping[str, Place | None]:
        """Answer every address. One that has a record without a country is as unknown as one that has none."""
        unplaceable = {address for address in addresses if self._ipv4_only and ":" in address}
        known = [address for address in addresses if address not in unplaceable]
        if len(self._places) > _RECORDS_AT_HAND:
            self._places = {}
        places, records = self._places, self._tree.records(known)
        try:
            for address, record in zip(known, records, strict=True):
                if record not in places:
                    places[record] = _place(self._reader.get(address))
            return dict.fromkeys(unplaceable) | dict(zip(known, map(places.__getitem__, records), strict=True))
        except _BROKEN as error:
            raise self._refused(f"is broken inside ({_reason(error)})") from None

    def coordinates(self, addresses: Sequence[str], city: str) -> tuple[float, float] | None:
        """Return latitude and longitude of a city, by the first of some addresses there that the file has in it too."""
        for address in addresses:
            try:
                record = self._reader.get(address)
            except (*_BROKEN, ValueError):  # ValueError: an address that is stored as a hash, or an IPv6 for IPv4 data
                continue
            if isinstance(record, dict) and _text(record, "city", "names", "en") == city:
                place = record.get("location")
                if isinstance(place, dict):
                    latitude, longitude = place.get("latitude"), place.get("longitude")
                    if isinstance(latitude, float) and isinstance(longitude, float):
                        return round(latitude, 3), round(longitude, 3)
        return None

    def close(self) -> None:
        """Unmap the file."""
        self._reader.close()

    def _first_records(self) -> Iterator[object]:
        """Hop from network to network. The reader's own iterator aborts the process if the file is broken."""
        for first in _FIRST_PUBLIC[: 1 if self._ipv4_only else 2]:
            at, end = int(first), 1 << first.max_prefixlen
            for _ in range(_FIRST_NETWORKS):
                if at >= end:
                    break
                record, length = self._reader.get_with_prefix_len(type(first)(at))
                yield record
                size = 1 << (first.max_prefixlen - length)
                at = (at // size + 1) * size

    def _refused(self, what: str) -> Refused:
        return Refused(
            f"the geo database {self._path} {what}. "
            "Next: fetch one with `clickstream setup`, or name another in the settings, group geo, key `mmdb`"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _place(record: object) -> Place | None:
    """Read the layout of https://dev.maxmind.com/geoip/docs/databases/city-and-country."""
    country = _text(record, "country", "iso_code")
    if country is None:
        return None
    return Place(country, _text(record, "subdivisions", 0, "names", "en"), _text(record, "city", "names", "en"))


def _text(record: object, *steps: str | int) -> str | None:
    for step in steps:
        if isinstance(record, dict):
            record = record.get(step)
        elif isinstance(record, list) and step == 0 and record:
            record = record[0]
        else:
            return None
    return sys.intern(record) if isinstance(record, str) and record else None  # a city has many records
