"""Which record of a MaxMind database each of many addresses has, by walking the search tree for all of them at once.

The reader takes one address at a time, and builds the whole record in Python for it, names in eight languages and all.
Nearly all of that is avoidable: where a batch has a thousand new addresses, most have a record that is known already.
The format is described in https://maxmind.github.io/MaxMind-DB/.
"""

import mmap
import socket
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Final

import numpy as np
from maxminddb.reader import Metadata

from clickstream.batch import Numbers

_SHORTCUT: Final = 16  # bits that are walked in advance, for every IPv4 there is

Bits = np.ndarray[Any, np.dtype[np.uint8]]


class Tree:
    """The search tree of a file, which stays mapped into memory; `ValueError` if the file is too short for it."""

    def __init__(self, path: Path, about: Metadata) -> None:
        if about.record_size not in (24, 28, 32):
            raise ValueError(f"its records have {about.record_size} bits")
        self._nodes: int = about.node_count
        self._record_size: int = about.record_size
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = self._nodes * self._record_size // 4
        if size + 4 > len(mapped):
            raise ValueError("it ends before its search tree does")
        self._words: np.ndarray[Any, Any] = np.ndarray((size,), ">u4", mapped, 0, (1,))  # one begins at every byte
        top = np.zeros(1, np.int64)
        if about.ip_version == 6:
            top = self._walk(top, np.zeros((1, 96), np.uint8))
        every = np.arange(1 << _SHORTCUT).astype(">u2").view(np.uint8).reshape(-1, 2)
        self._ipv4 = self._walk(np.repeat(top, len(every)), np.unpackbits(every, axis=1))

    def records(self, addresses: Sequence[str]) -> list[int]:
        """Return a number for the record of each address, the same for the same record."""
        is_ipv6 = [":" in address for address in addresses]
        records = np.zeros(len(addresses), np.int64)
        if any(is_ipv6):
            bits = _bits(socket.AF_INET6, list(compress(addresses, is_ipv6)))
            records[is_ipv6] = self._walk(np.zeros(len(bits), np.int64), bits)
        is_ipv4 = [not one for one in is_ipv6]
        bits = _bits(socket.AF_INET, list(compress(addresses, is_ipv4)))
        first = np.packbits(bits[:, :_SHORTCUT], axis=1).view(">u2")[:, 0]
        records[is_ipv4] = self._walk(self._ipv4[first], bits[:, _SHORTCUT:])
        return [int(record) for record in records]

    def _walk(self, at: Numbers, bits: Bits) -> Numbers:
        """Go from these nodes the way that the bits say, each until it comes to a record."""
        at = at.copy()
        for depth in range(bits.shape[1]):
            going = np.flatnonzero(at < self._nodes)
            if not len(going):
                break
            at[going] = self._next(at[going], bits[going, depth])
        return at

    def _next(self, nodes: Numbers, bit: Bits) -> Numbers:
        """Read the left or the right half of each node: two big-endian numbers of 24, 28 or 32 bits."""
        size = self._record_size
        words = self._words[nodes * (size // 4) + bit * (size // 4 - 4)].astype(np.int64)
        if size == 32:
            return words
        right = words & ((1 << size) - 1)
        left = words >> 8
        if size == 28:  # the byte in the middle has the highest bits of both
            left |= (words & 0xF0) << 20
        return np.where(bit, right, left)


def _bits(family: int, addresses: Sequence[str]) -> Bits:
    width = 4 if family == socket.AF_INET else 16
    packed = b"".join([socket.inet_pton(family, address) for address in addresses])
    return np.unpackbits(np.frombuffer(packed, np.uint8).reshape(-1, width), axis=1)
