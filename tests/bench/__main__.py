"""Events a second of the whole job, by replay of raw files, and of its batch function alone."""

import argparse
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli import screen
from cli.job import JobProcess
from cli.servers import RedisServer
from cli.setup import DATA, GEO
from cli.tally import Tally
from clickstream.batch import Arrived
from clickstream.schema import ORIGIN, RAW
from clickstream.settings import Dedup, Geo, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from connectors.redis_door import RedisDoor
from flink_app.wiring import process
from generator.malformed import mixed
from generator.shoppers import Shoppers

FILE_ROWS = 100_000
HOURS = 2  # the events arrive within so many, so that two partitions are open at a time
START = np.datetime64("2026-01-01T00:00:00", "us")
TICKS = os.sysconf("SC_CLK_TCK")
KINDS = ("jvm", "python", "redis")


class Point(NamedTuple):
    """Where the job was at a moment."""

    at: float  # seconds
    processed: int
    cpu: Mapping[str, float]  # seconds, by kind of process


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000, help="for the whole job [%(default)s]")
    parser.add_argument("--repeat", type=int, default=1, help="runs of the whole job [%(default)s]")
    parser.add_argument("--parallelism", type=int, default=2, help="slots of Flink [%(default)s]")
    parser.add_argument("--users", type=int, default=100_000, help="how many shoppers there are [%(default)s]")
    parser.add_argument("--no-archive", action="store_true", help="write no raw archive")
    parser.add_argument("--dedup", action="store_true", help="keep out what is sent again")
    parser.add_argument("--only", choices=["batch", "job"], help="measure just this")
    given = parser.parse_args()
    files = records(given.events, given.users)
    rows: list[list[Any]] = []
    if given.only != "job":
        rows += batch_function(files, given)
    if given.only != "batch":
        rows += whole_job(files, given)
    columns = ["", "events", "events/s", "spread", "CPU µs/event", "JVM", "Python", "Redis"]
    screen.table(machine("apache-flink", "pyarrow", "msgspec"), columns, rows, right=(1, 2, 3, 4, 5, 6, 7))
    screen.out.print(
        "\nThe batch function: decode, look-ups through a real Redis with memory in front, last access, columns; one"
        "\nprocess. The whole job: raw Parquet through Flink into enriched, rejected and raw, exactly once, checkpoints"
        f"\nevery 5 s, between its first and last commit; no offers are sent. {given.users:,} shoppers, 1 % malformed.",
        markup=False,
    )


def records(count: int, users: int) -> Path:
    """Make raw files of so many events, or find those of an earlier run."""
    folder = DATA / "bench" / f"{count}-events-of-{users}"
    if (folder / "_done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    made = mixed(Shoppers(1, users=users).records(), 0.01, random.Random(1))
    with screen.progress() as progress:
        for first in range(0, count, FILE_ROWS):
            payloads = [record.payload for record in itertools.islice(made, min(FILE_ROWS, count - first))]
            pq.write_table(_raw(payloads, first, count), folder / f"{first:09}.parquet", row_group_size=20_000)
            progress.show(f"making events: {first + len(payloads):,} of {count:,}")
    (folder / "_done").touch()
    return folder


def _raw(payloads: list[bytes], first: int, count: int) -> pa.Table:
    numbers = np.arange(first, first + len(payloads))
    arrival = START + (numbers * (HOURS * 3_600_000_000 // count)).astype("timedelta64[us]")
    columns = [
        pa.array(payloads, pa.binary()),
        pa.array(arrival).cast(pa.timestamp("us", "UTC")),
        pa.array([f"shardId-{number % 4:012}" for number in numbers.tolist()]),
        pa.array([f"4959033827149{number:043}" for number in numbers.tolist()]),
    ]
    return pa.table(columns, schema=RAW)


def batch_function(files: Path, given: argparse.Namespace) -> list[list[Any]]:
    """Time the function that the job calls, on batches of the job's size."""
    batches = list(itertools.islice(_batches(files, Settings(lake=Lake(root="")).job.batch_size), 60))
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        _load_names(redis.url, given.users)
        run = process(_settings(folder, redis.url, given, replay=None))
        took, python, of_redis = [], [], []
        for batch in batches:
            wall, used, redis_used = time.perf_counter(), time.process_time(), _cpu_of(redis.pid)
            run(batch)
            events = len(batch.payload)
            took.append(events / (time.perf_counter() - wall))
            python.append((time.process_time() - used) / events * 1e6)
            of_redis.append((_cpu_of(redis.pid) - redis_used) / events * 1e6)
    half = len(took) // 2
    rows = []
    for name, part in (("batch function, caches cold", slice(0, half)), ("… warm", slice(half, None))):
        events = sum(len(batch.payload) for batch in batches[part])
        ours, theirs = statistics.median(python[part]), statistics.mean(of_redis[part])
        rates = took[part]
        row = [name, events, int(statistics.median(rates)), _spread(rates)]
        rows.append([*row, f"{ours + theirs:.1f}", "", f"{ours:.1f}", f"{theirs:.1f}"])
    return rows


def whole_job(files: Path, given: argparse.Namespace) -> list[list[Any]]:
    """Time the job between its first and its last commit, so that starting up is not in it."""
    rates, cpus = [], []
    for _ in range(given.repeat):
        with tempfile.TemporaryDirectory(dir=DATA) as folder, RedisServer(Path(folder) / "redis") as redis:
            _load_names(redis.url, given.users)
            settings = _settings(folder, redis.url, given, replay=files.as_uri())
            first, last = _measure(settings, Path(folder), given, redis.pid)
        done = last.processed - first.processed
        rates.append(done / (last.at - first.at))
        cpus.append([(last.cpu[kind] - first.cpu[kind]) / done * 1e6 for kind in KINDS])
    used = [statistics.median(cpu) for cpu in zip(*cpus, strict=True)]
    rate = int(statistics.median(rates))
    spent = [f"{one:.1f}" for one in [sum(used), *used]]
    options = f"{', no archive' if given.no_archive else ''}{', dedup' if given.dedup else ''}"
    name = f"whole job, {given.parallelism} slots{options}"
    return [[name, given.events, rate, _spread(rates), *spent]]


def _measure(settings: Settings, folder: Path, given: argparse.Namespace, redis: int) -> tuple[Point, Point]:
    tally = Tally(LakeDoor(settings.lake.root))
    points: list[Point] = []
    with (
        JobProcess(settings, folder / "job", parallelism=given.parallelism, checkpoint_seconds=5) as job,
        screen.progress() as progress,
    ):
        while not job.finished:
            processed = tally.update().processed
            if processed > (points[-1].processed if points else 0):
                points.append(Point(time.monotonic(), processed, _cpu(job.pid, redis)))
            progress.show(f"{processed:,} of {given.events:,} committed")
            time.sleep(0.1)
    if len(points) < 3:
        sys.exit(f"{given.events:,} events are too few to see more than {len(points)} commits: give more with --events")
    return points[0], points[-2]  # the last commit waits for the job's end


def _cpu(session: int, redis: int) -> Mapping[str, float]:
    """Sum up what a session's processes, and Redis, have used so far, in seconds."""
    used: dict[str, float] = defaultdict(float, redis=_cpu_of(redis))
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                kind = "jvm" if (entry / "comm").read_text() == "java\n" else "python"
                used[kind] += _cpu_of(int(entry.name))
    return used


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _batches(files: Path, size: int) -> Iterator[Arrived]:
    for file in sorted(files.glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(size):
            origin = {column.name: batch.column(column.name) for column in ORIGIN}
            yield Arrived(batch.column("payload"), origin)


def _load_names(url: str, users: int) -> None:
    door = RedisDoor.connect(url, timeout=10)
    door.write_names((one.customer_id, one.name) for one in Shoppers(1, users=users).customers())
    door.close()


def _settings(folder: str, redis_url: str, given: argparse.Namespace, replay: str | None) -> Settings:
    return Settings(
        lake=Lake(root=(Path(folder) / "lake").as_uri(), raw=not given.no_archive),
        source=Source(replay=replay),
        offers=Offers(enabled=False),
        redis=Redis(url=redis_url),
        geo=Geo(mmdb=str(GEO)),
        dedup=Dedup(enabled=given.dedup),
    )


def _spread(values: list[float]) -> str:
    return f"{min(values):,.0f}–{max(values):,.0f}" if len(values) > 1 else ""


def machine(*packages: str) -> str:
    """Say what was measured on, and with which versions."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), "CPU")
    versions = " ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}, {versions}, commit {_commit()}"


def _commit() -> str:
    answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "no commit"


if __name__ == "__main__":
    main()
