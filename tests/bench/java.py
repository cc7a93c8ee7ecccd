"""What Flink does without Python: read the records, and decode JSON with its own format. Also run as a program."""

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import requests

from cli.servers import RedisServer
from cli.tally import Tally
from clickstream.schema import EVENT, RAW, flink_columns
from clickstream.settings import Lake, Settings, Source
from connectors.lake import Lake as LakeDoor
from flink_app import local, tables
from flink_app.state import REST
from tests.bench.contender import LAKE, Contender, Program
from tests.bench.equal import differences_of_events
from tests.bench.job import between_commits
from tests.bench.measure import Point, watch
from tests.bench.records import Records

READ = 10_000_000  # records, at least
PARQUET = (
    "'format' = 'parquet', 'parquet.compression' = 'SNAPPY', 'parquet.utc-timezone' = 'true',"
    " 'parquet.write.int64.timestamp' = 'true', 'parquet.timestamp.time.unit' = 'micros'"
)
JSON = "'format' = 'json', 'json.timestamp-format.standard' = 'SQL'"


def replay(parallelism: int) -> Contender:
    """Make a contender of reading alone: the job's source into nothing."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        with _program("replay", _over_and_over(records, folder / "records"), folder, parallelism) as program:
            read = _Read(folder)
            points = list(watch([program.pid], redis.pid, read.records, lambda: program.running))
        return between_commits(points)

    return Contender("replay: source into nothing, Flink in Java", run)


def json_to_parquet(parallelism: int) -> Contender:
    """Make a contender of Flink SQL alone: lines of JSON into Parquet, by Flink's own formats."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        lines = records.make_lines()
        tally = Tally(LakeDoor((folder / LAKE).as_uri()))
        with _program("json", lines, folder, parallelism) as program:
            points = list(watch([program.pid], redis.pid, lambda: tally.update().processed, lambda: program.running))
        return between_commits(points)

    return Contender("Flink SQL in Java", run, differences_of_events)


def _over_and_over(records: Records, folder: Path) -> Path:
    """Put the files into a folder often enough for their reading to take a while."""
    folder.mkdir()
    for turn in range(math.ceil(READ / records.events)):
        for file in records.files():
            (folder / f"{turn}-{file.name}").hardlink_to(file)
    return folder


def _program(what: str, records: Path, folder: Path, parallelism: int) -> Program:
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.java", what, records, folder, str(parallelism)]
    return Program(command, folder / "java.log")


class _Read:
    """Asks Flink how many records its source has emitted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._so_far = 0

    def records(self) -> int:
        """Return how many; the number of the last answer where there is none."""
        with suppress(OSError, requests.RequestException, ValueError, LookupError):
            url = (self._folder / REST).read_text()
            (job,) = self._ask(f"{url}/jobs")["jobs"]
            (vertex,) = self._ask(f"{url}/jobs/{job['id']}")["vertices"]
            metrics = f"{url}/jobs/{job['id']}/vertices/{vertex['id']}/subtasks/metrics"
            (name,) = (
                m["id"]
                for m in self._ask(metrics)
                if m["id"].startswith("Source") and m["id"].endswith(".numRecordsOut")
            )
            (count,) = self._ask(f"{metrics}?get={name}&agg=sum")
            self._so_far = int(count["sum"])
        return self._so_far

    def _ask(self, url: str) -> Any:
        return requests.get(url, timeout=5).json()


def main() -> None:
    """Run one of the two until all is read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=STATEMENTS)
    parser.add_argument("records", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parallelism", type=int)
    given = parser.parse_args()
    settings = Settings(lake=Lake(root=(given.folder / LAKE).as_uri()), source=Source(replay=given.records.as_uri()))
    options = local.configuration(settings, given.folder, parallelism=given.parallelism, checkpoint_seconds=5)
    options["metrics.fetcher.update-interval"] = "100"  # ms; otherwise a run has but a few points
    flink = local._environment(options, given.folder)
    from pyflink.table import StreamTableEnvironment  # noqa: PLC0415  # the environment's variables come first

    environment = StreamTableEnvironment.create(flink)
    environment.get_config().set("table.local-time-zone", "UTC")
    environment.get_config().set("pipeline.object-reuse", "true")
    (given.folder / REST).write_text(f"http://{options['rest.address']}:{options['rest.port']}")
    *created, insert = STATEMENTS[given.what](settings)
    for statement in created:
        environment.execute_sql(statement)
    environment.execute_sql(insert).wait()


def _replay(settings: Settings) -> list[str]:
    return [
        tables.source(settings),
        f"CREATE TABLE nowhere ({flink_columns(RAW)}) WITH ('connector' = 'blackhole')",
        "INSERT INTO nowhere SELECT * FROM records",
    ]


def _json(settings: Settings) -> list[str]:
    columns = flink_columns(pa.schema(EVENT)).replace("TIMESTAMP_LTZ(6)", "TIMESTAMP(6)")
    files = f"'connector' = 'filesystem', 'path' = '{settings.source.replay}'"
    lake = f"'connector' = 'filesystem', 'path' = '{settings.lake.root}/enriched'"
    return [
        f"CREATE TABLE line ({columns}) WITH ({files}, {JSON})",
        f"CREATE TABLE enriched ({columns}) WITH ({lake}, {PARQUET})",
        "INSERT INTO enriched SELECT * FROM line",
    ]


STATEMENTS = {"replay": _replay, "json": _json}

if __name__ == "__main__":
    main()
