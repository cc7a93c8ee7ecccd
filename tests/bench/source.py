"""What reading a stream costs the job beside reading files: the same events as raw Parquet and out of a Kinesis."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from cli import screen
from cli.job import JobProcess
from cli.servers import Kinesalite, RedisServer
from cli.tally import Tally
from clickstream.errors import ClickstreamError
from clickstream.settings import Source
from connectors.lake import Lake as LakeDoor
from generator.kinesis import KinesisPublisher
from generator.records import Record
from tests.bench.contender import Contender
from tests.bench.equal import differences
from tests.bench.job import Options, between_commits
from tests.bench.measure import Point, in_turn, machine, median, watch
from tests.bench.records import CHECKED, SHARDS, Records
from tests.bench.standin import Held, serving

STREAM: Final = "clicks"


def reading(name: str, source: Callable[[Records, Path], AbstractContextManager[Source]], *, exact: bool) -> Contender:
    """Make a contender of the job with a source; of one that is `exact` the records keep where they came from."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        with source(records, folder) as its_source:
            settings = replace(Options().settings(folder, redis.url), source=its_source)
            tally = Tally(LakeDoor(settings.lake.root))

            def is_running() -> bool:  # a stream has no end; files have, and stopping just before it fails
                return not job.finished and (ends or tally.processed < records.events)

            ends = its_source.replay is not None
            with JobProcess(settings, folder / "job", checkpoint_seconds=2) as job:
                points = list(watch([job.pid], redis.pid, lambda: tally.update().processed, is_running))
                if not ends:
                    job.stop()
        return between_commits(points)

    return Contender(name, run, differences if exact else None)


def _replay(records: Records, _folder: Path) -> AbstractContextManager[Source]:
    return nullcontext(Source(replay=records.raw.as_uri()))


@contextmanager
def _kinesalite(records: Records, folder: Path) -> Iterator[Source]:
    with Kinesalite(folder / "kinesalite") as kinesis, closing(kinesis.client()) as client:
        kinesis.create_stream(STREAM, SHARDS)
        everything = (Record(held.key, held.payload) for shard in _shards(records).values() for held in shard)
        KinesisPublisher(client, STREAM).publish(everything)
        yield Source(stream=STREAM, endpoint=kinesis.endpoint)


def _standin(*, cbor: bool) -> Callable[[Records, Path], AbstractContextManager[Source]]:
    @contextmanager
    def source(records: Records, _folder: Path) -> Iterator[Source]:
        with serving(list(_shards(records).values()), cbor=cbor) as endpoint, pytest.MonkeyPatch.context() as environ:
            environ.setenv("AWS_CBOR_DISABLE", str(not cbor).lower())
            yield Source(stream=STREAM, endpoint=endpoint)

    return source


def _shards(records: Records) -> Mapping[str, list[Held]]:
    """Read the raw files back into the shards that they name."""
    shards: dict[str, list[Held]] = defaultdict(list)
    for file in records.files():
        rows = pq.read_table(file)
        millis = rows["arrival_timestamp"].cast(pa.int64()).to_numpy() // 1000
        columns = (rows[name].to_numpy().tolist() for name in ("payload", "shard_id", "sequence_number"))
        for payload, shard, number, arrival in zip(*columns, millis.tolist(), strict=True):
            shards[shard].append(Held(payload, number[-9:], number, arrival))
    return shards


SOURCES: Final = {
    one.name: one
    for one in (
        reading("replay", _replay, exact=True),
        reading("kinesalite", _kinesalite, exact=False),
        reading("stand-in, JSON", _standin(cbor=False), exact=True),
        reading("stand-in, CBOR", _standin(cbor=True), exact=True),
    )
}


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.source", description=__doc__)
    parser.add_argument("--events", type=int, default=6_000_000, help="of each run [%(default)s]")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each [%(default)s]")
    parser.add_argument("--users", type=int, default=100_000, help="how many shoppers there are [%(default)s]")
    parser.add_argument("--only", choices=SOURCES, action="append", help="measure just these")
    given = parser.parse_args()
    records, names = Records(given.events, given.users).make(), given.only or list(SOURCES)
    try:
        for name in names:
            SOURCES[name].check(CHECKED.make())
        found = dict(zip(names, in_turn(names, given.repeat, lambda name: SOURCES[name].measure(records)), strict=True))
    except ClickstreamError as error:
        sys.exit(str(error))
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
