"""Where an address is, and how sure a row is of it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Status(StrEnum):
    """What a look-up came to; in the lake as `geo_status` and `name_status`."""

    FOUND = "found"
    UNKNOWN = "unknown"  # it was asked for, and nobody knows; private and reserved addresses are this at once
    PENDING = "pending"  # the answer is on its way into Redis, too late for this row
    UNAVAILABLE = "unavailable"  # the other side is down


class Place(Struct, frozen=True, gc=False):
    """A country as ISO 3166-1 alpha-2, with region and city by their English names where they are known."""

    country: str
    region: str | None = None
    city: str | None = None

    def __str__(self) -> str:
        """Write `City, Region, CC`, leaving out what is not known."""
        return ", ".join(part for part in (self.city, self.region, self.country) if part)


class Answer(Struct, Generic[T], frozen=True, gc=False):
    """What a look-up came to: the value if it was found, and in any case how it ended."""

    status: Status
    value: T | None = None

    @classmethod
    def of(cls, value: T | None) -> "Answer[T]":
        """Wrap what somebody who would know has said."""
        return cls(Status.UNKNOWN) if value is None else cls(Status.FOUND, value)


class GeoProvider(Protocol):
    """Whoever knows where addresses are: one call a batch, for public addresses in their shortest spelling.

    `find` answers each address with its place, or None where nobody knows it; an address it could not ask about is
    left out. `Unavailable` means that nothing could be asked. `metered` providers are paid by the call or far away:
    each address is asked of them by one worker at a time, and a batch does not wait long for them.
    """

    metered: bool

    def find(self, addresses: Sequence[str]) -> Mapping[str, Place | None]:
        """Say where each address is."""

    def close(self) -> None:
        """Let go of what is open."""


# Where an IPv4 begins otherwise, all or some of the addresses are set aside for something:
# https://www.iana.org/assignments/iana-ipv4-special-registry and, from 224 up, multicast and reserved ones
_ALL_PUBLIC: Final = {str(n) for n in range(1, 224)} - {"10", "100", "127", "169", "172", "192", "198", "203"}


def public_address(text: str) -> str | None:
    """Return the shortest spelling of a public address, IPv4 for a mapped IPv6; None for one nobody can place."""
    if text.partition(".")[0] in _ALL_PUBLIC:
        return text  # an IPv4 has only one spelling
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address) if address.is_global and not address.is_multicast else None
