"""Small files hold what pyarrow's own would."""

from io import BytesIO
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
    "moment": st.integers(0, 2**50),
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


@given(st.lists(st.lists(ROW, max_size=20) | st.lists(FULL, max_size=9) | st.just([NULL] * 9), max_size=6))
@example([])
@example([[], []])
@example([[NULL] * 3000, [NULL | {"text": "é"}] * 3001])
@example([[NULL | {"text": "x" * 70_000}], [], [NULL | {"text": ""}]])
@settings(deadline=None)
def test_each_file_has_its_rows_and_what_pyarrow_tells_of_them(parts: list[list[dict[str, Any]]]) -> None:
    rows = pa.Table.from_pylist([row for part in parts for row in part], SCHEMA)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    files = SmallFiles(SCHEMA, with_statistics=ORDERED).of(rows, ends)

    assert len(files) == len(parts)
    for file, part in zip(files, parts, strict=True):
        assert (file is None) == (not part)
        if file is not None:
            wanted = pa.Table.from_pylist(part, SCHEMA)
            assert pq.read_table(BytesIO(file)) == wanted
            assert told(file) == told(by_pyarrow(wanted))


def test_another_reader_understands_them(tmp_path: Any) -> None:
    rows = [{"text": None if number % 3 else f"ü{number}", "whole": number} for number in range(2000)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    for number, file in enumerate(SmallFiles(SCHEMA, with_statistics=ORDERED).of(table, np.arange(50, 2001, 50))):
        (tmp_path / f"{number}.parquet").write_bytes(file)

    read = duckdb.sql(f"SELECT text, whole FROM '{tmp_path}/*.parquet' WHERE whole >= 1970 ORDER BY whole").fetchall()

    assert read == [(row["text"], row["whole"]) for row in rows[1970:]]


def told(file: bytes) -> list[Any]:
    """Return what a footer says, apart from sizes and places."""
    metadata = pq.read_metadata(BytesIO(file))
    chunks = [metadata.row_group(0).column(number).to_dict() for number in range(metadata.num_columns)]
    for chunk in chunks:
        for name in ("file_offset", "data_page_offset", "total_compressed_size", "total_uncompressed_size"):
            del chunk[name]
    return [metadata.schema.to_arrow_schema(), metadata.created_by, metadata.num_rows, metadata.num_row_groups, *chunks]


def by_pyarrow(rows: pa.Table) -> bytes:
    file = BytesIO()
    pq.write_table(rows, file, compression="snappy", use_dictionary=False, write_statistics=ORDERED, store_schema=False)
    return file.getvalue()
