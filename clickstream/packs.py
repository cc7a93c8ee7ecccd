"""Columns one after the other, as they cross between the JVM and Python: `Pack.java` says how they lie there."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

Part: TypeAlias = bytes | pa.Buffer
Values: TypeAlias = Part | pa.Array
"""Of a column: one value, or an array of values."""

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]

_COUNT_BYTES: Final = 8
_OFFSET_BYTES: Final = 4


def unpack(pack: pa.Buffer, types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Return a pack's columns, which stay where its bytes are: timestamps in microseconds, texts, or bytes."""
    count = int(np.frombuffer(pack, np.int32, 1)[0])
    at, columns = _COUNT_BYTES, []
    for column in types:
        rest = pack.slice(at)
        if pa.types.is_timestamp(column):
            columns.append(pa.Array.from_buffers(column, count, [None, rest]))
            at += 8 * count
        else:
            start = at + _padded(_OFFSET_BYTES * (count + 1))
            size = int(np.frombuffer(rest, np.int32, count + 1)[-1])
            columns.append(pa.Array.from_buffers(column, count, [None, rest, pack.slice(start, size)]))
            at = start + _padded(size)
    return columns


def packed(*columns: Sequence[Values]) -> list[Part]:
    """Return what to write, one after the other, for a pack of columns of texts or bytes.

    `ValueError` if one is longer than another.
    """
    counts, written = [], []
    for values in columns:
        offsets = np.cumsum(np.concatenate([[0], *map(_lengths, values)])).astype(np.int32)
        counts.append(len(offsets) - 1)
        size = int(offsets[-1])
        written += [pa.py_buffer(offsets), bytes(_padded(offsets.nbytes) - offsets.nbytes), *map(_bytes, values)]
        written.append(bytes(_padded(size) - size))
    (count,) = set(counts)
    return [count.to_bytes(_COUNT_BYTES, "little"), *written]


def _padded(size: int) -> int:
    return (size + 7) & -8


def _offsets(values: pa.Array) -> Numbers:
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]


def _lengths(values: Values) -> Sequence[int] | Numbers:
    if not isinstance(values, pa.Array):
        return [len(values)]
    return np.diff(_offsets(values)) if len(values) else []


def _bytes(values: Values) -> Part:
    if not isinstance(values, pa.Array):
        return values
    if not len(values):
        return b""
    start, end = _offsets(values)[[0, -1]].tolist()
    return values.buffers()[2].slice(start, end - start) if end > start else b""
