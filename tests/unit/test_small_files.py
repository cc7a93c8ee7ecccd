"""Small files hold what pyarrow's own would."""

from io import BytesIO
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clickstream.small_files import SmallFiles

SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "bytes": pa.binary(),
        "whole": pa.int64(),
        "fraction": pa.float64(),
        "moment": pa.timestamp("us"),
        "nested": pa.struct({"text": pa.string(), "deeper": pa.struct({"whole": pa.int64()})}),
    }
)
ORDERED = ["text", "bytes", "whole", "moment", "nested.text", "nested.deeper.whole"]
WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    "bytes": st.binary(max_size=20),
    "whole": WHOLE,
    "fraction": st.floats(allow_nan=False),
    "moment": st.integers(-(2**50), 2**50),
    "nested": st.fixed_dictionaries(
        {
            "text": st.none() | st.text("äb", max_size=3),
            "deeper": st.none() | st.fixed_dictionaries({"whole": st.none() | WHOLE}),
        }
    ),
}
ROW = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
FULL = st.fixed_dictionaries(VALUES)
NULL: dict[str, Any] = dict.fromkeys(VALUES)
OTHER = pa.Table.from_pylist([NULL | {"text": "not one of them", "whole": 9}], SCHEMA)


@given(st.lists(st.lists(ROW, max_size=20) | st.lists(FULL, max_size=9) | st.just([NULL] * 9), max_size=6))
@example([])
@example([[], []])
@example([[NULL] * 3000, [NULL | {"text": "é"}] * 3001])
@example([[NULL, NULL | {"nested": {"text": "b", "deeper": None}}] * count for count in (31, 32, 33, 300, 550)])
@example([[NULL | {"text": "x" * 4096}], [NULL | {"text": "x" * 4097}], [], [NULL | {"text": "x" * 70_000}]])
@settings(deadline=None)
def test_each_file_has_its_rows_and_what_pyarrow_tells_of_them(parts: list[list[dict[str, Any]]]) -> None:
    tables = [pa.Table.from_pylist(part, SCHEMA) for part in parts]
    rows = pa.concat_tables([OTHER, *tables])
    rows = (rows if len(parts) % 2 else rows.combine_chunks()).slice(len(OTHER))
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    files = SmallFiles(SCHEMA, with_statistics=ORDERED).of(rows, ends)

    assert len(files) == len(parts)
    for file, table in zip(files, tables, strict=True):
        assert (file is None) == (len(table) == 0)
        if file is not None:
            assert pq.read_table(BytesIO(file)) == table
            assert told(file) == told(by_pyarrow(table))
            assert chunks_end(file) == len(file) - 8 - int.from_bytes(file[-8:-4], "little")


def test_a_footer_says_how_large_columns_are_before_compression() -> None:
    table = pa.table({"whole": pa.array([7] * 1000, pa.int64()), "text": ["é"] * 1000})
    (file,) = SmallFiles(table.schema).of(table, np.array([1000]))

    row_group = pq.read_metadata(BytesIO(file)).row_group(0)

    sizes = [row_group.column(number).total_uncompressed_size for number in range(2)]
    assert [size - size % 1000 for size in sizes] == [8000, 6000]
    assert row_group.total_byte_size == sum(sizes)


def test_another_reader_understands_them(tmp_path: Any) -> None:
    rows = [{"text": None if number % 3 else f"ü{number}", "whole": number} for number in range(2000)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    for number, file in enumerate(SmallFiles(SCHEMA, with_statistics=ORDERED).of(table, np.arange(50, 2001, 50))):
        (tmp_path / f"{number}.parquet").write_bytes(file)

    read = duckdb.sql(f"SELECT text, whole FROM '{tmp_path}/*.parquet' WHERE whole >= 1970 ORDER BY whole").fetchall()

    assert read == [(row["text"], row["whole"]) for row in rows[1970:]]


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (pa.field("a", pa.int64(), nullable=False), "column a has no nulls"),
        (pa.field("a", pa.large_string()), "column a of large_string cannot"),
        (pa.field("a", pa.struct([pa.field("b", pa.timestamp("ns"))])), "column a.b of timestamp.ns. cannot"),
        (pa.field("a", pa.float64()), "column a of double can have no statistics"),
    ],
)
def test_columns_that_it_cannot_write_are_refused(field: pa.Field, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        SmallFiles(pa.schema([field]), with_statistics=["a"])


def test_rows_that_it_cannot_cut_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files, rows = SmallFiles(SCHEMA), pa.Table.from_pylist([NULL | {"whole": 1}] * 3000, SCHEMA)
    for ends in ([], [2999], [1, 3001]):
        with pytest.raises(ValueError, match="3000 rows cannot be cut"):
            files.of(rows, np.array(ends, np.int64))

    write, several = pq.write_table, {"data_page_size": 1000, "write_batch_size": 500}
    monkeypatch.setattr(pq, "write_table", lambda *these, **options: write(*these, **options | several))
    with pytest.raises(ValueError, match="not one page a column"):
        files.of(rows, np.array([3000]))


def told(file: bytes) -> list[Any]:
    """Return what a footer says, apart from sizes and places."""
    metadata = pq.read_metadata(BytesIO(file))
    chunks = [metadata.row_group(0).column(number).to_dict() for number in range(metadata.num_columns)]
    for chunk in chunks:
        for name in ("file_offset", "data_page_offset", "total_compressed_size", "total_uncompressed_size"):
            del chunk[name]
        chunk["encodings"] = sorted(chunk["encodings"])
    return [metadata.schema.to_arrow_schema(), metadata.created_by, metadata.num_rows, metadata.num_row_groups, *chunks]


def chunks_end(file: bytes) -> int:
    """Follow the column chunks from the first on, each of which begins where the one before ends."""
    metadata, at = pq.read_metadata(BytesIO(file)), 4
    for number in range(metadata.num_columns):
        chunk = metadata.row_group(0).column(number)
        assert chunk.data_page_offset == at
        at += chunk.total_compressed_size
    return at


def by_pyarrow(rows: pa.Table) -> bytes:
    file = BytesIO()
    pq.write_table(rows, file, compression="snappy", use_dictionary=False, write_statistics=ORDERED, store_schema=False)
    return file.getvalue()
