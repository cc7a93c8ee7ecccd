"""A table's rows as many small Parquet files at once.

pyarrow takes 20 µs to set up each column of a file, however few rows it has: for two hundred files of fifty rows that
was ten times what their values cost. Here pyarrow lays a column out once, and the result is cut: a file has one page of
plain values of each column, compressed with Snappy, which is all that pyarrow writes without dictionaries.

The format: https://github.com/apache/parquet-format, `Encodings.md` and `src/main/thrift/parquet.thrift`, in Thrift's
compact protocol, https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. There a field
begins with a byte: by how much its id is above that of the field before, and its type (5 and 6 numbers, 8 bytes, 9 a
list, 12 a struct). A list has such a byte for its length, and a struct ends with a zero.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickstream.batch import Numbers

Levels = np.ndarray[Any, np.dtype[np.uint8]]

_LONGEST_STATISTIC: Final = 4096  # bytes, pyarrow's own limit
_MAGIC: Final = b"PAR1"
_COMPRESSED: Final = pa.Codec("snappy")
_TYPES: Final = {"INT64": 2, "DOUBLE": 5, "BYTE_ARRAY": 6}
_ENCODINGS: Final = b"\x19\x25\x00\x06"  # PLAIN for values, RLE for levels
_NO_ROWS: Final = b"\x16\x00\x19\x0c"  # of a footer without row groups: num_rows and row_groups
_ONE_PAGE: Final = 1 << 30
_SNAPPY: Final = b"\x15\x02"


class SmallFiles:
    """Writes rows of a schema of texts, bytes, 64-bit numbers, timestamps and structs of them.

    Statistics are of columns in which they help a reader, and which are not of floating point.
    """

    def __init__(self, schema: pa.Schema, *, with_statistics: Collection[str] = ()) -> None:
        empty = pa.BufferOutputStream()
        pq.write_metadata(schema, empty, store_schema=False)
        footer = _footer(empty.getvalue().to_pybytes())
        self._schema, self._rest = footer.split(_NO_ROWS)
        its_columns = pq.ParquetFile(empty.getvalue()).schema
        self._columns = [_Column.of(its_columns.column(number), with_statistics) for number in range(len(its_columns))]

    def of(self, rows: pa.Table, ends: Numbers) -> list[bytes | None]:
        """Write a file of the rows up to each of these ends, from the one before on; None where there are none.

        A column has less than a gigabyte in all, which is what a page can hold.
        """
        filled = np.diff(ends, prepend=0) > 0
        files = iter(self._of(rows, ends[filled]) if rows.num_rows else [])
        return [next(files) if is_filled else None for is_filled in filled.tolist()]

    def _of(self, rows: pa.Table, ends: Numbers) -> list[bytes]:
        starts = np.concatenate([[0], ends])
        counts = np.diff(starts)
        files = [_File(count) for count in counts.tolist()]
        leaves = (leaf for column in rows.columns for leaf in _leaves(column.combine_chunks()))
        for column, chunk, (values, levels) in zip(self._columns, _chunks(rows), leaves, strict=True):
            if levels is None:
                bounds, its_levels = starts, [_run(count, column.depth) for count in counts.tolist()]
            else:
                bounds = np.concatenate([[0], np.cumsum(levels == column.depth)])[starts]
                its_levels = _cut_levels(levels, column.depth, counts)
            sizes = _plain_sizes(values, bounds)
            plain, cuts = chunk[len(chunk) - sizes[-1] :], sizes.tolist()
            known = _statistics(values, bounds, counts) if column.has_statistics else [b""] * len(files)
            for file, level, (start, end), statistics in zip(files, its_levels, pairwise(cuts), known, strict=True):
                file.add(column.described, level + plain[start:end], statistics)
        return [file.ended(self._schema, self._rest) for file in files]


@dataclass(frozen=True, slots=True)
class _Column:
    described: bytes
    depth: int
    """How many of the column and the structs around it can be null: the level of a value that is there."""
    has_statistics: bool

    @classmethod
    def of(cls, column: pq.ColumnSchema, with_statistics: Collection[str]) -> "_Column":
        path = [name.encode() for name in column.path.split(".")]
        names = b"".join(_varint(len(name)) + name for name in path)
        described = b"\x15%b%b\x19%c%b%b" % (
            _number(_TYPES[column.physical_type]), _ENCODINGS, len(path) << 4 | 8, names, _SNAPPY
        )  # fmt: skip
        return cls(described, column.max_definition_level, column.path in with_statistics)


class _File:
    """A file on its way, column after column: magic, a page of each, and the footer that says where they are."""

    def __init__(self, rows: int) -> None:
        self._rows = _number(rows)
        self._header = b"\x2c\x15%b\x15\x00\x15\x06\x15\x06\x00\x00" % self._rows  # num_values, PLAIN, RLE and RLE
        self._parts = [_MAGIC]
        self._chunks: list[bytes] = []
        self._size = len(_MAGIC)
        self._uncompressed = 0

    def add(self, described: bytes, page: bytes, statistics: bytes) -> None:
        compressed = _COMPRESSED.compress(page, asbytes=True)
        header = b"\x15\x00\x15%b\x15%b%b" % (_number(len(page)), _number(len(compressed)), self._header)
        uncompressed, size = len(header) + len(page), len(header) + len(compressed)
        self._parts += header, compressed
        self._chunks.append(
            b"\x26\x00\x1c%b\x16%b\x16%b\x16%b\x26%b%b\x00\x00"
            % (described, self._rows, _number(uncompressed), _number(size), _number(self._size), statistics)
        )
        self._size += size
        self._uncompressed += uncompressed

    def ended(self, schema: bytes, rest: bytes) -> bytes:
        count = len(self._chunks)
        columns = b"%c" % (count << 4 | 12) if count < 15 else b"\xfc" + _varint(count)
        footer = b"%b\x16%b\x19\x1c\x19%b%b\x16%b\x16%b\x00%b" % (
            schema, self._rows, columns, b"".join(self._chunks), _number(self._uncompressed), self._rows, rest
        )  # fmt: skip
        return b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), _MAGIC])


def _footer(file: bytes) -> bytes:
    return file[-8 - int.from_bytes(file[-8:-4], "little") : -8]


def _leaves(column: pa.Array, around: Levels | None = None, depth: int = 0) -> Iterator[tuple[pa.Array, Levels | None]]:
    """Walk through a column's fields: for each the values that are there, and its levels if some are not.

    The level of a row is how many of the structs around a value, and of the value itself, are there.
    """
    levels = around
    if column.null_count:
        outside = np.full(len(column), depth, np.uint8) if around is None else around
        levels = np.add(outside, np.asarray(column.is_valid()), dtype=np.uint8)
    if pa.types.is_struct(column.type):
        for inner in column.flatten():
            yield from _leaves(inner, levels, depth + 1)
    else:
        yield column.drop_null() if column.null_count else column, levels


def _chunks(rows: pa.Table) -> list[memoryview]:
    """Have all rows written as one page a column, which ends with its values one after the other."""
    file = pa.BufferOutputStream()
    pq.write_table(
        rows, file, compression="none", use_dictionary=False, write_statistics=False, data_page_size=_ONE_PAGE
    )
    written = file.getvalue()
    row_group = pq.read_metadata(pa.BufferReader(written)).row_group(0)
    chunks = (row_group.column(number) for number in range(row_group.num_columns))
    return [
        memoryview(written)[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size]
        for chunk in chunks
    ]


def _plain_sizes(values: pa.Array, bounds: Numbers) -> Numbers:
    """Return how many bytes PLAIN makes of the values up to each bound: texts have four for their length."""
    if not _has_length(values.type):
        return 8 * bounds
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset :]
    of_texts: Numbers = offsets[bounds].astype(np.int64) - offsets[0]
    return of_texts + 4 * bounds


def _has_length(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _cut_levels(levels: Levels, most: int, counts: Numbers) -> list[bytes]:
    """Encode each file's levels with their length before them: one run where all are the same, else bit by bit."""
    starts = np.cumsum(counts) - counts
    least, greatest = (some.reduceat(levels, starts).tolist() for some in (np.minimum, np.maximum))
    if least == greatest:
        return [_run(count, level) for count, level in zip(counts.tolist(), least, strict=True)]
    groups = -(-counts // 8)  # of eight levels, each file's last one filled up
    first = np.cumsum(groups) - groups
    width = most.bit_length()
    bits = np.zeros((8 * groups.sum(), width), np.uint8)
    bits[np.arange(len(levels)) + np.repeat(8 * first - starts, counts)] = levels[:, None] >> np.arange(width) & 1
    packed = np.packbits(bits, bitorder="little").tobytes()
    return [
        _run(count, low) if low == high else _with_length(_varint(size << 1 | 1) + packed[start : start + size * width])
        for count, low, high, size, start in zip(
            counts.tolist(), least, greatest, groups.tolist(), (first * width).tolist(), strict=True
        )
    ]


@lru_cache(1 << 12)
def _run(count: int, level: int) -> bytes:
    return _with_length(_varint(count << 1) + bytes([level]))


def _with_length(levels: bytes) -> bytes:
    return len(levels).to_bytes(4, "little") + levels


def _statistics(values: pa.Array, bounds: Numbers, counts: Numbers) -> list[bytes]:
    """Say of each file's values which are the least and the greatest, and how many are null."""
    sizes = np.diff(bounds)
    nulls = [b"\x3c\x36" + _number(count) for count in (counts - sizes).tolist()]
    extremes = iter(_extremes(values, bounds[:-1][sizes > 0]))
    return [
        known + (next(extremes) if size else b"") + b"\x00" for known, size in zip(nulls, sizes.tolist(), strict=True)
    ]


def _extremes(values: pa.Array, starts: Numbers) -> Iterator[bytes]:
    if _has_length(values.type):
        items = values.cast(pa.binary()).to_numpy(zero_copy_only=False).tolist()
        parts = [items[start:end] for start, end in pairwise([*starts.tolist(), len(items)])]
        both = zip(map(max, parts), map(min, parts), strict=True)
    else:
        numbers = values.view(pa.int64()).to_numpy()
        both = zip(*(_eights(some.reduceat(numbers, starts)) for some in (np.maximum, np.minimum)), strict=True)
    for greatest, least in both:
        known = b"\x28%b%b\x18%b%b" % (_varint(len(greatest)), greatest, _varint(len(least)), least)
        yield known if max(len(greatest), len(least)) <= _LONGEST_STATISTIC else b""


def _eights(numbers: Numbers) -> list[bytes]:
    together = numbers.tobytes()
    return [together[start : start + 8] for start in range(0, len(together), 8)]


@lru_cache(1 << 14)
def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


@lru_cache(1 << 14)
def _number(number: int) -> bytes:
    """Encode a number from 0 on as Thrift does those that have a sign."""
    return _varint(number << 1)
