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
_LONGEST_HEADER: Final = 64  # bytes: seven numbers, and pyarrow gives no statistics
_MAGIC: Final = b"PAR1"
_CODEC: Final = pa.Codec("snappy")
_TYPES: Final = {pa.string(): 6, pa.binary(): 6, pa.int64(): 2, pa.timestamp("us"): 2, pa.float64(): 5}
"""What a column can be of, and Parquet's number for what that is stored as."""
_ENCODINGS: Final = b"\x19\x25\x00\x06"  # PLAIN for values, RLE for levels
_NO_ROWS: Final = b"\x16\x00\x19\x0c"  # of a footer without row groups: num_rows and row_groups
_ONE_PAGE: Final = 1 << 30
_SNAPPY: Final = b"\x15\x02"


class SmallFiles:
    """Writes rows of nullable columns of the types above, and of structs of them; `TypeError` for a schema of others.

    Statistics are of columns in which they help a reader; those of floating point can have none.
    """

    def __init__(self, schema: pa.Schema, *, with_statistics: Collection[str] = ()) -> None:
        empty = pa.BufferOutputStream()
        pq.write_metadata(schema, empty, store_schema=False)
        footer = _footer(empty.getvalue().to_pybytes())
        self._schema, self._rest = footer.split(_NO_ROWS)
        self._columns = [column for field in schema for column in _Column.all_of(field, with_statistics)]

    def of(self, rows: pa.Table, ends: Numbers) -> list[bytes | None]:
        """Write a file of the rows up to each of these ends, from the one before on; None where there are none.

        The last end is that of the rows. A column has less than a gigabyte in all, which is what a page can hold;
        `ValueError` for anything else.
        """
        if rows.num_rows != (ends[-1] if len(ends) else 0):
            raise ValueError(f"{rows.num_rows} rows cannot be cut at {ends[-1:]}")
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
    def all_of(
        cls, field: pa.Field, with_statistics: Collection[str], around: tuple[str, ...] = ()
    ) -> Iterator["_Column"]:
        path = (*around, field.name)
        name = ".".join(path)
        if not field.nullable:
            raise TypeError(f"column {name} has no nulls, and so would have no levels")
        if pa.types.is_struct(field.type):
            for inner in field.type:
                yield from cls.all_of(inner, with_statistics, path)
            return
        if field.type not in _TYPES:
            raise TypeError(f"column {name} of {field.type} cannot be written")
        has_statistics = name in with_statistics
        if has_statistics and pa.types.is_floating(field.type):
            raise TypeError(f"column {name} of {field.type} can have no statistics")
        names = b"".join(_varint(len(part.encode())) + part.encode() for part in path)
        described = b"\x15%b%b\x19%b%b%b" % (
            _number(_TYPES[field.type]), _ENCODINGS, _list_of(len(path), 8), names, _SNAPPY
        )  # fmt: skip
        yield cls(described, len(path), has_statistics)


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
        compressed = _CODEC.compress(page, asbytes=True)
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
        columns = _list_of(len(self._chunks), 12)
        footer = b"%b\x16%b\x19\x1c\x19%b%b\x16%b\x16%b\x00%b" % (
            schema, self._rows, columns, b"".join(self._chunks), _number(self._uncompressed), self._rows, rest
        )  # fmt: skip
        return b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), _MAGIC])


def _list_of(count: int, kind: int) -> bytes:
    """Begin a list of so many of a type."""
    return bytes([count << 4 | kind]) if count < 15 else bytes([15 << 4 | kind]) + _varint(count)


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
        rows,
        file,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        data_page_size=_ONE_PAGE,
        write_batch_size=rows.num_rows,
    )
    written = file.getvalue()
    row_group = pq.read_metadata(pa.BufferReader(written)).row_group(0)
    chunks = (row_group.column(number) for number in range(row_group.num_columns))
    pages = [
        memoryview(written)[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size]
        for chunk in chunks
    ]
    if row_group.num_rows != rows.num_rows or not all(map(_is_one, pages)):
        raise ValueError(f"{rows.num_rows} rows of {rows.nbytes} bytes are not one page a column")
    return pages


def _is_one(page: memoryview) -> bool:
    """Say whether a page ends where these bytes do, by the size that its header begins with."""
    size = shift = 0
    for digit in bytes(page[3:13]):  # behind its type and the size's own first byte
        size |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            break
    return 0 <= len(page) - (size >> 1) < _LONGEST_HEADER


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
