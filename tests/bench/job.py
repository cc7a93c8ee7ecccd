"""The whole job, by replay: raw Parquet through Flink into the tables, exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.job import JobProcess
from cli.servers import RedisServer
from cli.setup import GEO
from cli.tally import Tally
from clickstream.settings import Dedup, Geo, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from tests.bench.contender import LAKE, Contender
from tests.bench.equal import differences
from tests.bench.measure import Point, watch
from tests.bench.records import Records

WARMED_UP = 0.3
"""The part of a run's events after which it is steady: the JVM's compilers take half of its time until then."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the job is told beside its records."""

    parallelism: int = 2
    archive: bool = True
    dedup: bool = False
    checkpoint_seconds: float = 5

    def settings(self, folder: Path, redis_url: str, replay: Path | None = None) -> Settings:
        """Write the job's settings; its lake is in the folder."""
        return Settings(
            lake=Lake(root=(folder / LAKE).as_uri(), raw=self.archive),
            source=Source(replay=replay.as_uri() if replay else None),
            offers=Offers(enabled=False),
            redis=Redis(url=redis_url),
            geo=Geo(mmdb=str(GEO)),
            dedup=Dedup(enabled=self.dedup),
        )

    def __str__(self) -> str:
        said = ["", "no archive"][not self.archive], ["", "dedup"][self.dedup]
        return ", ".join([f"{self.parallelism} slots", *filter(None, said)])


def whole_job(options: Options, warmed_up: float = WARMED_UP) -> Contender:
    """Make a contender of the job, to be measured once that part of its events is behind it."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        settings = options.settings(folder, redis.url, records.raw)
        tally = Tally(LakeDoor(settings.lake.root))
        seconds, slots = options.checkpoint_seconds, options.parallelism
        with JobProcess(settings, folder / "job", parallelism=slots, checkpoint_seconds=seconds) as job:
            points = list(watch([job.pid], redis.pid, lambda: tally.update().processed, lambda: not job.finished))
        return between_commits(points, warmed_up)

    return Contender(f"whole job, {options}", run, differences if options.archive and not options.dedup else None)


def between_commits(points: Sequence[Point], warmed_up: float = WARMED_UP) -> list[Point]:
    """Return the commits of a run's steady part: not before the JVM has compiled what runs, and not the last one,
    which waits for the job's end."""
    total = points[-1].processed
    return [point for point in points if warmed_up * total < point.processed < total]
