"""The JVM's side of slices: files stitched together without looking at a value."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.servers import PROJECT

JOB = """
import sys
from pathlib import Path
from flink_app.local import _environment, configuration
from clickstream.settings import Lake, Settings
folder = Path(sys.argv[1])
options = configuration(Settings(lake=Lake(root="/nowhere")), folder, parallelism=1, checkpoint_seconds=3600)
environment = _environment(options, folder)
from pyflink.table import StreamTableEnvironment
table_environment = StreamTableEnvironment.create(environment)
for name, format in (("slices", "parquet"), ("files", "parquet-slices")):
    table_environment.execute_sql(
        f"CREATE TEMPORARY TABLE {name} (`slice` BYTES, `hour` STRING) PARTITIONED BY (`hour`)"
        f" WITH ('connector' = 'filesystem', 'path' = 'file://{folder}/{name}', 'format' = '{format}')"
    )
table_environment.execute_sql("INSERT INTO files SELECT * FROM slices").wait()
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
    stitched(tmp_path, hours)

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
    stitched(tmp_path, {"a": [rows(0, 2), rows(2, 2)]}, write_statistics=lambda number: number == 0)

    file = the_file(tmp_path, "a")
    assert file.read().num_rows == 4
    assert not any(column.is_stats_set and column.statistics.has_min_max for column in columns(file))


def test_what_is_large_becomes_several_row_groups(tmp_path: Path) -> None:
    parts = [pa.table({"bytes": [RANDOM.bytes(1 << 20) for _ in range(6)]}) for _ in range(7)]
    stitched(tmp_path, {"a": parts})

    file = the_file(tmp_path, "a")
    assert file.read() == pa.concat_tables(parts).combine_chunks()
    sizes = [file.metadata.row_group(number).total_byte_size >> 20 for number in range(file.metadata.num_row_groups)]
    assert sizes == [18, 18, 6]


@pytest.mark.parametrize(
    ("parts", "dictionary", "complaint"),
    [
        ([rows(0, 2)], True, "a slice has a dictionary"),
        ([rows(0, 2), rows(2, 2).drop(["note"])], False, "a slice has other columns than those before it"),
    ],
)
def test_slices_that_do_not_fit_stop_the_job(
    tmp_path: Path, parts: list[pa.Table], dictionary: bool, complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        stitched(tmp_path, {"a": parts}, dictionary=dictionary)


def stitched(
    folder: Path,
    hours: dict[str, list[pa.Table]],
    *,
    dictionary: bool = False,
    write_statistics: Callable[[int], bool] = lambda _: True,
) -> None:
    """Have Flink write these slices."""
    for hour, parts in hours.items():
        slices = pa.table({"slice": [as_slice(*part, dictionary, write_statistics) for part in enumerate(parts)]})
        of_hour = folder / "slices" / f"hour={hour}" / "slices.parquet"
        of_hour.parent.mkdir(parents=True)
        # Flink's reader takes minutes for a compressed page of 42 MB
        pq.write_table(slices, of_hour, compression="none", use_dictionary=False)
    command = [sys.executable, "-c", JOB, str(folder)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-20_000:]


def as_slice(number: int, part: pa.Table, dictionary: bool, write_statistics: Callable[[int], bool]) -> bytes:
    file = BytesIO()
    pq.write_table(part, file, use_dictionary=dictionary, write_statistics=write_statistics(number))
    return file.getvalue()


def the_file(folder: Path, hour: str) -> pq.ParquetFile:
    (file,) = (folder / "files" / f"hour={hour}").iterdir()
    return pq.ParquetFile(file)


def columns(file: pq.ParquetFile) -> list[pq.ColumnChunkMetaData]:
    return [file.metadata.row_group(0).column(number) for number in range(file.metadata.num_columns)]


def statistics(file: pq.ParquetFile) -> dict[str, tuple[object, object, int]]:
    return {
        column.path_in_schema: (column.statistics.min, column.statistics.max, column.statistics.null_count)
        for column in columns(file)
    }
