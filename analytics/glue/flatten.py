"""Flattens `enriched` into `flattened`, hour by hour: a script for AWS Glue 5, or for any Spark 3.5.

    flatten.py --lake s3://my-lake

What is inside `additional_data`, or any other struct there may be one day, becomes columns in its place. An hour is
done when its committed files are those that were read last time, by name, size and moment of writing; so what came
late or was replayed, erased or deleted is done again, and nothing else. New files appear before the old ones go: who
reads meanwhile, or after a run that died in between, may see rows twice, never none, and the next run mends it.
One run at a time.
"""

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql.functions import col, count, lit
from pyspark.sql.types import StructType

PARTITION: Final = ("year", "month", "day", "hour")
STATE: Final = "_flatten/done.json"
"""What was flattened: the hours, each with the fingerprint of its source. Without it all is done anew."""

HOURS_AT_ONCE: Final = 168
"""So many hours are committed together; after an interruption the next run goes on behind the last of these."""

OPTIONS: Final = {
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",  # month=07 stays 07
    "spark.sql.parquet.compression.codec": "snappy",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.session.timeZone": "UTC",
}


class File(NamedTuple):
    """A committed file; `hour` is its folder below the table, such as year=2026/month=11/day=24/hour=10."""

    hour: str
    path: str
    size: int  # bytes
    written: int  # milliseconds since 1970


class Storage:
    """Files by way of Hadoop, which knows S3 as well as folders."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        context: Any = spark.sparkContext
        self._hadoop = context._jvm.org.apache.hadoop
        self.root = root.rstrip("/")
        self._files = self._path("").getFileSystem(context._jsc.hadoopConfiguration())

    def files(self, table: str) -> Iterator[File]:
        """List a table's committed files: names that begin with a dot or an underscore are work in progress."""
        top = self._path(table)
        if not self._files.exists(top):
            return
        base = self._files.getFileStatus(top).getPath().toString() + "/"
        found = self._files.listFiles(top, True)
        while found.hasNext():
            status = found.next()
            path = status.getPath().toString()
            below = path.removeprefix(base)
            if not any(part[0] in "._" for part in below.split("/")):
                yield File(below.rpartition("/")[0], path, status.getLen(), status.getModificationTime())

    def remove(self, file: File) -> None:
        """Remove a file; one that is gone already is fine."""
        self._files.delete(self._hadoop.fs.Path(file.path), False)

    def read_state(self) -> dict[str, str]:
        """Read what was flattened; nothing, if there is nothing to read or it cannot be understood."""
        path = self._path(STATE)
        if not self._files.exists(path):
            return {}
        with_close = self._files.open(path)
        try:
            text = bytes(with_close.readAllBytes()).decode()
        finally:
            with_close.close()
        try:
            return dict(json.loads(text))
        except ValueError:  # half written when the machine went down
            return {}

    def write_state(self, done: dict[str, str]) -> None:
        """Write what was flattened, in the place of what was there."""
        stream = self._files.create(self._path(STATE), True)
        try:
            stream.write(bytearray(json.dumps(done, indent=0, sort_keys=True).encode()))
        finally:
            stream.close()

    def _path(self, name: str) -> Any:
        return self._hadoop.fs.Path(f"{self.root}/{name}")


def flattened(rows: DataFrame) -> DataFrame:
    """Return the rows with the fields of each struct as columns in its place."""
    columns = []
    for field in rows.schema:
        if isinstance(field.dataType, StructType):
            columns += [col(f"`{field.name}`.`{inner.name}`").alias(inner.name) for inner in field.dataType]
        else:
            columns.append(col(f"`{field.name}`"))
    return rows.select(columns)


def run(spark: SparkSession, lake: str) -> tuple[int, int]:
    """Flatten what has changed since the last run; return how many hours and rows that were."""
    for option, value in OPTIONS.items():
        spark.conf.set(option, value)
    storage = Storage(spark, lake)
    source, target = _by_hour(storage.files("enriched")), _by_hour(storage.files("flattened"))
    done = storage.read_state()
    now = {hour: _fingerprint(files) for hour, files in source.items()}
    gone = sorted((target.keys() | done.keys()) - source.keys())
    changed = sorted(hour for hour in source if done.get(hour) != now[hour] or hour not in target)
    rows = 0
    for start in range(0, len(changed), HOURS_AT_ONCE):
        hours = changed[start : start + HOURS_AT_ONCE]
        rows += _flatten(spark, storage.root, [file for hour in hours for file in source[hour]])
        _remove(storage, [file for hour in hours for file in target.get(hour, [])])
        done |= {hour: now[hour] for hour in hours}
        storage.write_state(done)
        print(f"{min(start + HOURS_AT_ONCE, len(changed))} of {len(changed)} hours are flattened", flush=True)
    if gone:
        _remove(storage, [file for hour in gone for file in target.get(hour, [])])
        storage.write_state({hour: mark for hour, mark in done.items() if hour in source})
    return len(changed) + len(gone), rows


def _flatten(spark: SparkSession, root: str, files: Sequence[File]) -> int:
    """Add to `flattened` what is in these files; Spark commits all of it at the end."""
    read = spark.read.option("basePath", f"{root}/enriched").option("mergeSchema", "true")
    counted = Observation("flattened")
    rows = flattened(read.parquet(*(file.path for file in files))).observe(counted, count(lit(1)).alias("rows"))
    # One file an hour if it is small, some if it is large.
    balanced = spark.sql(f"SELECT /*+ REBALANCE({', '.join(PARTITION)}) */ * FROM {{rows}}", rows=rows)
    balanced.write.partitionBy(*PARTITION).mode("append").parquet(f"{root}/flattened")
    return int(counted.get["rows"])


def _remove(storage: Storage, files: Sequence[File]) -> None:
    for file in files:
        storage.remove(file)


def _by_hour(files: Iterator[File]) -> dict[str, list[File]]:
    hours: dict[str, list[File]] = defaultdict(list)
    for file in files:
        hours[file.hour].append(file)
    return dict(hours)


def _fingerprint(files: Sequence[File]) -> str:
    names = "\n".join(sorted(f"{file.path.rpartition('/')[2]} {file.size} {file.written}" for file in files))
    return hashlib.sha256(names.encode()).hexdigest()[:32]


def main(arguments: Sequence[str]) -> None:
    """Run with the arguments that Glue, or a person, gives; Glue has some of its own among them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="a folder or URI, with enriched/ in it")
    given, _ = parser.parse_known_args(arguments)
    spark = SparkSession.builder.appName("clickstream flatten").getOrCreate()
    hours, rows = run(spark, given.lake)
    print(f"{hours} hours had changed, {rows} rows are flattened anew", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
