"""Memory that a task of Flink's and its Python process both have: a file that both have mapped, as in `Region.java`.

Beam would hand a batch on through gRPC, protobuf and its own streams, on both sides, and copy it each time. So a batch
lies in a region, what becomes of it is written behind it, and only where that is crosses by way of Beam.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import pyarrow as pa

from clickstream.packs import Part

_NUMBER: Final = 8
"""Bytes of a number in an address, which is two of them, little-endian, and a file's name: where, how much, in what."""


def answered(address: bytes, work: Callable[[pa.Buffer], Sequence[Part]]) -> bytes:
    """Have what is at an address worked on, write what comes of it behind, and return the address of that."""
    start, size = (int.from_bytes(address[at : at + _NUMBER], "little") for at in (0, _NUMBER))
    name = address[2 * _NUMBER :]
    region = _region(name)
    parts = work(region.read(start, size))
    start = -(-(start + size) // _NUMBER) * _NUMBER
    written = region.write(start, parts)
    return b"".join([start.to_bytes(_NUMBER, "little"), written.to_bytes(_NUMBER, "little"), name])


class _Region:
    def __init__(self, name: bytes) -> None:
        self._file = os.open(name, os.O_RDWR)
        self._mapped = mmap.mmap(self._file, 0)

    def read(self, start: int, size: int) -> pa.Buffer:
        self._map(start + size)
        return pa.py_buffer(self._mapped).slice(start, size)

    def write(self, start: int, parts: Sequence[Part]) -> int:
        """Write parts one after the other; return how many bytes they are."""
        end = start + sum(map(len, parts))
        if end > len(self._mapped):
            there = len(self._mapped)
            # On a full disk this fails; if the file were only made longer, a signal would end both processes later.
            os.posix_fallocate(self._file, there, end - there)
            self._map(end)
        view = memoryview(self._mapped)
        at = start
        for part in parts:
            view[at : at + len(part)] = memoryview(part).cast("B")
            at += len(part)
        return end - start

    def _map(self, size: int) -> None:
        if size > len(self._mapped):  # the file has grown since
            self._mapped = mmap.mmap(self._file, 0)


_region: Final = cache(_Region)
