"""Addresses that are not to be stored as they came: cut off, or replaced by a keyed hash, in columns and in bytes."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

import pyarrow as pa

from clickstream.decode import is_ip

HASHES: Final = IPv6Network("fdc5:71c4::/32")
"""Hashes are written as addresses in here, so that a hidden record is still a valid event. What is in here already
stays as it is: a replay hides nothing twice."""

_KEPT_BITS: Final = {4: 24, 6: 48}
_ESCAPED: Final = re.compile(rb"(\\\\)|\\u00(2[eE]|3[0-9aA]|[46][1-6])")
_LIKE_AN_ADDRESS: Final = re.compile(
    rb"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{0,4}:){2,}[0-9A-Fa-f]{0,4}(?:\.[0-9]+)*|(?<![0-9])[0-9]+(?:\.[0-9]+){3}"
)
_FOUR_NUMBERS: Final = re.compile(rb"[0-9]+(?:\.[0-9]+){3}")


@dataclass(frozen=True, slots=True)
class HiddenAddresses:
    """Replaces addresses in what is stored of a batch; the place has been looked up before, by the whole address.

    `truncate` keeps the first 24 bits of an IPv4 and the first 48 of an IPv6; `hash` replaces it by 96 bits of
    HMAC-SHA256, the same for the same address however it is spelled, as long as the key is the same.
    """

    how: Literal["truncate", "hash"]
    key: bytes

    def __call__(self, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Replace the addresses of events, and whatever reads as one in the bytes of any record, in these columns."""
        hidden = dict(columns)
        if addresses := columns.get("user_ip"):
            encoded = addresses.dictionary_encode()
            stored = pa.array([self.of(text) for text in encoded.dictionary.to_pylist()], pa.string())
            hidden["user_ip"] = stored.take(encoded.indices)
        if payloads := columns.get("payload"):
            hidden["payload"] = pa.array(
                [payload and self.in_bytes(payload) for payload in payloads.to_pylist()], payloads.type
            )
        return hidden

    def of(self, address: str) -> str:
        """Return what is stored in an address' place."""
        whole = _shortest(address)
        if self.how == "hash":
            return self.hash(address)
        if whole in HASHES:
            return str(whole)
        return str(ip_network((whole, _KEPT_BITS[whole.version]), strict=False).network_address)

    def hash(self, address: str) -> str:
        """Return the keyed hash of an address, by which Redis knows it, also where what is stored is cut off."""
        whole = _shortest(address)
        return str(whole) if whole in HASHES else self._hashed(whole.packed)

    def in_bytes(self, payload: bytes) -> bytes:
        r"""Replace whatever reads as an address, in JSON or in what was to be JSON, also where it is escaped (\u002e).

        Four numbers with dots between count as an IPv4, valid or not; groups with colons as an IPv6 if they are one, or
        have two colons in a row or five in all. Bytes that are no ASCII, such as UTF-16, are not read.
        """
        if b"\\u00" in payload:
            payload = _ESCAPED.sub(lambda one: one[1] or bytes([int(one[2], 16)]), payload)
        return _LIKE_AN_ADDRESS.sub(lambda found: self._instead(found[0]), payload)

    def _instead(self, text: bytes) -> bytes:
        if is_ip(text.decode()):
            return self.of(text.decode()).encode()
        if b":" not in text:
            return self._instead_of_numbers(text)
        if b"::" in text or text.count(b":") >= 5:
            return self._hashed(text).encode() if self.how == "hash" else b"::"
        return _FOUR_NUMBERS.sub(lambda found: self._instead(found[0]), text)

    def _instead_of_numbers(self, text: bytes) -> bytes:
        """Hide what was to be an IPv4 and is none, such as 300.1.2.3 or 08.8.8.8."""
        return self._hashed(text).encode() if self.how == "hash" else text.rpartition(b".")[0] + b".0"

    def _hashed(self, what: bytes) -> str:
        digest = hmac.digest(self.key, what, "sha256")[:12]
        return str(IPv6Address(HASHES.network_address.packed[:4] + digest))


def _shortest(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
