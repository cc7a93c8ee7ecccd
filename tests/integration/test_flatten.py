"""The flatten job, run by Spark on lakes of the job's layout: right rows, and as often as one likes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from analytics.glue import flatten
from clickstream.schema import FLATTENED
from tests.events import event
from tests.lakes import write_enriched


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.memory", "1g")
            .config("spark.sql.shuffle.partitions", "4")
            .getOrCreate()
        )
        yield session
        session.stop()


def events(count: int, hour: int = 10, **changes: Any) -> Iterator[dict[str, Any]]:
    for number in range(count):
        at = f"2026-01-05 {hour:02}:{number % 60:02}:00.000001"
        yield event(timestamp=at, insertion_timestamp=at, user_id=str(number), product_id=number, **changes)


def rows(lake: Path, hour: str = "*") -> list[tuple[Any, ...]]:
    files = [str(file) for file in lake.glob(f"flattened/year=*/month=*/day=*/hour={hour}/part-*")]
    if not files:
        return []
    read = "read_parquet($1, hive_partitioning = true, hive_types_autocast = false)"
    query = f"SELECT hour, user_id, product_id, price, city FROM {read} ORDER BY hour, product_id"
    return duckdb.execute(query, [files]).fetchall()


def written(lake: Path) -> set[str]:
    return {file.name for file in lake.glob("flattened/**/part-*")}


def test_every_struct_becomes_columns_in_its_place_and_values_stay(spark: SparkSession, tmp_path: Path) -> None:
    write_enriched(tmp_path, events(3, price=2.5), city="Köln")

    assert flatten.run(spark, str(tmp_path)) == (1, 3)

    assert rows(tmp_path) == [("10", str(n), n, 2.5, "Köln") for n in range(3)]
    (file,) = tmp_path.glob("flattened/year=2026/month=01/day=05/hour=10/part-*")
    parquet = pq.ParquetFile(file)
    assert parquet.schema_arrow.names == FLATTENED.names
    assert {parquet.metadata.row_group(0).column(n).compression for n in range(len(FLATTENED))} == {"SNAPPY"}
    at = parquet.schema.column(0)
    assert (at.name, at.physical_type, "isAdjustedToUTC=false" in str(at.logical_type)) == ("timestamp", "INT64", True)


def test_a_second_run_finds_nothing_to_do(spark: SparkSession, tmp_path: Path) -> None:
    write_enriched(tmp_path, events(5))
    flatten.run(spark, str(tmp_path))
    before = written(tmp_path)

    assert flatten.run(spark, str(tmp_path)) == (0, 0)

    assert written(tmp_path) == before


def test_only_hours_in_which_something_came_are_done_again(spark: SparkSession, tmp_path: Path) -> None:
    write_enriched(tmp_path, [*events(5, hour=10), *events(4, hour=11)])
    flatten.run(spark, str(tmp_path))
    untouched = written(tmp_path / "flattened/year=2026/month=01/day=05/hour=10")
    write_enriched(tmp_path, events(2, hour=11), name="part-late")
    write_enriched(tmp_path, events(1, hour=12))

    assert flatten.run(spark, str(tmp_path)) == (2, 7)

    assert [len(rows(tmp_path, hour)) for hour in ("10", "11", "12")] == [5, 6, 1]
    assert written(tmp_path / "flattened/year=2026/month=01/day=05/hour=10") == untouched


def test_what_was_replayed_or_erased_takes_the_place_of_what_was_there(spark: SparkSession, tmp_path: Path) -> None:
    write_enriched(tmp_path, [*events(5, hour=10), *events(5, hour=11)])
    flatten.run(spark, str(tmp_path))
    for file in tmp_path.glob("enriched/**/part-0"):
        file.unlink()
    write_enriched(tmp_path, events(2, hour=10, price=1.25), name="part-replay")

    assert flatten.run(spark, str(tmp_path)) == (2, 2)

    assert [price for *_, price, _ in rows(tmp_path)] == [1.25, 1.25]
    assert rows(tmp_path, "11") == []


def test_a_run_that_died_before_it_took_the_old_files_away_is_mended_by_the_next(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_enriched(tmp_path, events(5))
    flatten.run(spark, str(tmp_path))
    write_enriched(tmp_path, events(2), name="part-late")
    with monkeypatch.context() as dying:
        dying.setattr(flatten, "_remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            flatten.run(spark, str(tmp_path))
    assert len(rows(tmp_path)) == 12  # twice, for now

    assert flatten.run(spark, str(tmp_path)) == (1, 7)

    assert len(rows(tmp_path)) == 7


def test_work_in_progress_is_not_read_and_a_state_half_written_is_no_state(spark: SparkSession, tmp_path: Path) -> None:
    write_enriched(tmp_path, events(3))
    for name in (".part-1.inprogress", "_temporary"):
        (tmp_path / f"enriched/year=2026/month=01/day=05/hour=10/{name}").write_text("not Parquet")
    flatten.run(spark, str(tmp_path))
    (tmp_path / flatten.STATE).write_text('{"year=2026/mon')
    (tmp_path / "_flatten/.done.json.crc").unlink()

    assert flatten.run(spark, str(tmp_path)) == (1, 3)

    assert len(rows(tmp_path)) == 3


def test_a_column_that_older_files_do_not_have_is_empty_there(spark: SparkSession, tmp_path: Path) -> None:
    lake = write_enriched(tmp_path, events(2))
    (file,) = lake.files("enriched")
    older = lake.read(file).drop(["city"])
    lake.write("enriched", file.partition, "part-older", older)

    flatten.run(spark, str(tmp_path))

    assert [city for *_, city in rows(tmp_path)] == [None] * 4
    assert len(rows(tmp_path)) == 4


def test_a_lake_without_events_is_nothing_to_do(spark: SparkSession, tmp_path: Path) -> None:
    assert flatten.run(spark, str(tmp_path)) == (0, 0)
