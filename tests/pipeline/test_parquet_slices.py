"""The JVM's side of slices: files stitched together without looking at a value."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli.servers import PROJECT

JOB = """
import sys
from pathlib import Path
from flink_app.local import _environment, configuration
from clickstream.settings import Lake, Settings
folders = [*map(Path, sys.argv[1:])]
options = configuration(Settings(lake=Lake(root="/nowhere")), folders[0], parallelism=1, checkpoint_seconds=3600)
environment = _environment(options, folders[0])
from pyflink.table import StreamTableEnvironment
table_environment = StreamTableEnvironment.create(environment)
complaints = {}
for number, folder in enumerate(folders):
    for name, format in (("slices", "parquet"), ("files", "parquet-slices")):
        table_environment.execute_sql(
            f"CREATE TEMPORARY TABLE {name}{number} (`slice` BYTES, `hour` STRING) PARTITIONED BY (`hour`)"
            f" WITH ('connector' = 'filesystem', 'path' = 'file://{folder}/{name}', 'format' = '{format}')"
        )
    try:
        table_environment.execute_sql(f"INSERT INTO files{number} SELECT * FROM slices{number}").wait()
    except Exception as error:
        complaints[folder] = str(error)
for folder, complaint in complaints.items():
    (folder / "complaint.txt").write_text(complaint)
sys.exit("\\n".join(complaints.values()) or 0)
"""
SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "text": pa.string(),
        "note": pa.string(),
        "nested": pa.struct({"price": pa.float64(), "product": pa.int64()}),
    }
)
RANDOM = np.random.default_rng(1)


def rows(first: int, count: int, note: str | None = "note") -> pa.Table:
    numbers = list(range(first, first + count))
    return pa.table(
        [
            numbers,
            [f"é{number}" for number in numbers],
            [note] * count,
            [{"price": number / 2, "product": None if number % 3 else number} for number in numbers],
        ],
        schema=SCHEMA,
    )


def test_slices_become_one_file_with_all_their_rows_and_statistics(tmp_path: Path) -> None:
    hours = {
        "one": [rows(5, 3)],
        "many": [rows(100, 7), rows(0, 20_000), rows(50, 1, note=None)],
        "none": [rows(0, 2, note=None), rows(2, 2, note=None)],
    }
    stitched(tmp_path, {hour: [*map(as_slice, parts)] for hour, parts in hours.items()})

    for hour, parts in hours.items():
        file = the_file(tmp_path, hour)
        assert file.read() == pa.concat_tables(parts).combine_chunks()
        assert file.metadata.num_row_groups == 1
    assert statistics(the_file(tmp_path, "many")) == {
        "number": (0, 19_999, 0),
        "text": ("é0", "é9999", 0),
        "note": ("note", "note", 1),
        "nested.price": (0, 9999.5, 0),
        "nested.product": (0, 19_998, 13_339),
    }
    assert statistics(the_file(tmp_path, "none"))["note"] == (None, None, 4)


def test_a_slice_without_statistics_leaves_the_file_without_them(tmp_path: Path) -> None:
    long = pa.Table.from_pylist([{"number": 1, "text": "x" * 5000}], SCHEMA)  # longer than pyarrow says of anything
    without = as_slice(rows(2, 2), write_statistics=False)
    stitched(
        tmp_path,
        {
            "first": [without, as_slice(rows(0, 2))],
            "between": [as_slice(rows(0, 2)), without, as_slice(rows(4, 2))],
            "one": [as_slice(rows(0, 1)), as_slice(long), as_slice(rows(2, 1))],
        },
    )

    for hour in ("first", "between"):
        file = the_file(tmp_path, hour)
        assert file.read().num_rows == file.metadata.num_rows > 2
        assert not any(column.is_stats_set for column in columns(file))
    assert statistics(the_file(tmp_path, "one")) == {
        "number": (0, 2, 0),
        "text": None,
        "note": ("note", "note", 1),
        "nested.price": (0, 1, 1),
        "nested.product": (0, 0, 2),
    }


def test_what_is_large_becomes_several_row_groups(tmp_path: Path) -> None:
    parts = [pa.table({"bytes": [RANDOM.bytes(1 << 20) for _ in range(6)], "part": [n] * 6}) for n in range(7)]
    stitched(tmp_path, {"a": [*map(as_slice, parts)]})

    file = the_file(tmp_path, "a")
    assert file.read() == pa.concat_tables(parts).combine_chunks()
    sizes = [file.metadata.row_group(number).total_byte_size >> 20 for number in range(file.metadata.num_row_groups)]
    assert sizes == [18, 18, 6]
    assert [statistics(file, number)["part"] for number in range(3)] == [(0, 2, 0), (3, 5, 0), (6, 6, 0)]


def test_slices_that_do_not_fit_stop_the_job(tmp_path: Path) -> None:
    whole = as_slice(rows(0, 2))
    misfits = {
        "a slice has a dictionary": [as_slice(rows(0, 2), use_dictionary=True)],
        "a slice has other columns than those before it": [whole, as_slice(rows(2, 2).drop(["note"]))],
        "a slice is compressed in another way": [whole, as_slice(rows(2, 2), compression="none")],
        "a slice is no whole Parquet file: 0 bytes": [b""],
        f"a slice is no whole Parquet file: {len(whole) - 1} bytes": [whole[:-1]],
        f"a slice is no whole Parquet file: {len(whole) - 2} bytes": [whole[2:]],
    }
    folders = [tmp_path / str(number) for number in range(len(misfits))]
    for folder, slices in zip(folders, misfits.values(), strict=True):
        lay_out(folder, {"a": slices})

    run_job(*folders)

    for folder, complaint in zip(folders, misfits, strict=True):
        assert complaint in (folder / "complaint.txt").read_text()


def stitched(folder: Path, hours: dict[str, list[bytes]]) -> None:
    """Have Flink write these slices."""
    lay_out(folder, hours)
    done = run_job(folder)
    assert done.returncode == 0, done.stderr[-20_000:]


def lay_out(folder: Path, hours: dict[str, list[bytes]]) -> None:
    for hour, slices in hours.items():
        of_hour = folder / "slices" / f"hour={hour}" / "slices.parquet"
        of_hour.parent.mkdir(parents=True)
        # Flink's reader takes minutes for a compressed page of 42 MB
        pq.write_table(pa.table({"slice": slices}), of_hour, compression="none", use_dictionary=False)


def run_job(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, *map(str, folders)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def as_slice(part: pa.Table, **options: Any) -> bytes:
    file = BytesIO()
    pq.write_table(part, file, **{"use_dictionary": False, "store_schema": False, **options})
    return file.getvalue()


def the_file(folder: Path, hour: str) -> pq.ParquetFile:
    (file,) = (folder / "files" / f"hour={hour}").iterdir()
    return pq.ParquetFile(file)


def columns(file: pq.ParquetFile, row_group: int = 0) -> list[pq.ColumnChunkMetaData]:
    return [file.metadata.row_group(row_group).column(number) for number in range(file.metadata.num_columns)]


def statistics(file: pq.ParquetFile, row_group: int = 0) -> dict[str, tuple[object, object, int] | None]:
    return {
        column.path_in_schema: column.statistics
        and (column.statistics.min, column.statistics.max, column.statistics.null_count)
        for column in columns(file, row_group)
    }
