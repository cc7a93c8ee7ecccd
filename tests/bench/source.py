"""What reading a stream costs the job beside reading files: the same events as raw Parquet and out of a Kinesis."""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from cli import screen
from cli.job import JobProcess
from cli.servers import Kinesalite, RedisServer
from cli.setup import DATA
from cli.tally import Tally
from clickstream.settings import Source
from connectors.lake import Lake as LakeDoor
from generator.kinesis import KinesisPublisher
from generator.records import Record
from tests.bench.job import Options, between_commits
from tests.bench.measure import Cost, between, in_turn, machine, median, watch
from tests.bench.records import SHARDS, Records
from tests.bench.standin import Held, serving

STREAM: Final = "clicks"
SOURCES: Final = ("replay", "kinesalite", "stand-in, JSON", "stand-in, CBOR")


def measure(name: str, records: Records) -> Cost:
    """Run the job on the records out of one of `SOURCES`, and count between its first commit and its last."""
    with tempfile.TemporaryDirectory(dir=DATA) as folder, ExitStack() as running:
        redis = running.enter_context(RedisServer(Path(folder) / "redis"))
        records.load_names(redis.url)
        source = running.enter_context(_source(name, records, Path(folder)))
        settings = replace(Options().settings(Path(folder), redis.url), source=source)
        tally = Tally(LakeDoor(settings.lake.root))
        job = running.enter_context(JobProcess(settings, Path(folder) / "job", checkpoint_seconds=2))

        def is_running() -> bool:
            return not job.finished and tally.processed < records.events

        points = list(watch([job.pid], redis.pid, lambda: tally.update().processed, is_running))
    return between(between_commits(points))


@contextmanager
def _source(name: str, records: Records, folder: Path) -> Iterator[Source]:
    if name == "replay":
        yield Source(replay=records.raw.as_uri())
    elif name == "kinesalite":
        with Kinesalite(folder / "kinesalite") as kinesis, closing(kinesis.client()) as client:
            kinesis.create_stream(STREAM, SHARDS)
            everything = (Record(held.key, held.payload) for shard in _shards(records).values() for held in shard)
            KinesisPublisher(client, STREAM).publish(everything)
            yield Source(stream=STREAM, endpoint=kinesis.endpoint)
    else:
        cbor = name.endswith("CBOR")
        with serving(list(_shards(records).values()), cbor=cbor) as endpoint, pytest.MonkeyPatch.context() as environ:
            environ.setenv("AWS_CBOR_DISABLE", str(not cbor).lower())
            yield Source(stream=STREAM, endpoint=endpoint)


def _shards(records: Records) -> Mapping[str, list[Held]]:
    """Read the raw files back into the shards that they name."""
    shards: dict[str, list[Held]] = defaultdict(list)
    for file in records.files():
        for row in pq.read_table(file).to_pylist():
            arrival = int(row["arrival_timestamp"].timestamp() * 1000)
            number = row["sequence_number"]
            shards[row["shard_id"]].append(Held(row["payload"], number[-9:], number, arrival))
    return shards


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.source", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="[%(default)s]")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each [%(default)s]")
    parser.add_argument("--only", choices=SOURCES, action="append", help="measure just these")
    given = parser.parse_args()
    names = given.only or SOURCES
    records = Records(given.events).make()
    found = dict(zip(names, in_turn(names, given.repeat, lambda name: measure(name, records)), strict=True))
    rows = []
    for name, costs in found.items():
        parts = [[cost.micros(*kinds) for cost in costs] for kinds in (("jvm", "python"), ("jvm",), ("python",))]
        more = [
            (cost.micros("jvm", "python") / base.micros("jvm", "python") - 1) * 100
            for cost, base in zip(costs, found[names[0]], strict=True)
        ]
        rows.append([name, median([cost.rate for cost in costs]), *(median(part, ".1f") for part in parts)])
        rows[-1].append("" if name == names[0] else median(more, "+.0f"))
    columns = ["", "events/s", "Flink µs/event", "JVM", "Python", f"% over {names[0]}"]
    screen.table(machine("apache-flink"), columns, rows, right=(1, 2, 3, 4, 5))


if __name__ == "__main__":
    main()
