"""The whole job, by replay: raw Parquet through Flink into the tables, exactly once, and offers into a stream."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from redis import Redis as RedisClient

from cli.job import JobProcess
from cli.servers import RedisServer
from cli.setup import GEO
from cli.tally import Tally
from clickstream.settings import Dedup, Geo, Job, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from tests.bench.contender import LAKE, Contender
from tests.bench.equal import differences
from tests.bench.measure import Point, watch
from tests.bench.records import Records
from tests.bench.standin import serving

OFFERS: Final = "offers.ndjson"
OFFERS_LOOKED_AT: Final = 10_000_000  # bytes of requests
_FLAT_OBJECT: Final = re.compile(rb'{"[^{}]*}')
WARMED_UP = 0.3
"""The part of a run's events after which it is steady: the JVM's compilers take half of its time until then."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the job is told beside its records."""

    parallelism: int = 2
    archive: bool = True
    offers: bool = True
    dedup: bool = False
    checkpoint_seconds: float = 5
    batch: int = Job().batch_size  # records in one
    bundle: int = Job().bundle_batches

    def settings(
        self, folder: Path, redis_url: str, replay: Path | None = None, offers_to: str | None = None
    ) -> Settings:
        """Write the job's settings; its lake is in the folder, and offers go to that endpoint, or nowhere."""
        return Settings(
            lake=Lake(root=(folder / LAKE).as_uri(), raw=self.archive),
            source=Source(replay=replay.as_uri() if replay else None, endpoint=offers_to),
            offers=Offers(enabled=offers_to is not None),
            redis=Redis(url=redis_url),
            geo=Geo(mmdb=str(GEO)),
            dedup=Dedup(enabled=self.dedup),
            job=Job(batch_size=self.batch, bundle_batches=self.bundle),
        )

    def __str__(self) -> str:
        said = ["", "no archive"][not self.archive], ["", "no offers"][not self.offers], ["", "dedup"][self.dedup]
        return ", ".join([f"{self.parallelism} slots", *filter(None, said)])


def whole_job(options: Options, warmed_up: float = WARMED_UP) -> Contender:
    """Make a contender of the job, to be measured once that part of its events is behind it."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        with offers_stream(folder / OFFERS) as endpoint:
            offers_to = endpoint if options.offers else None
            settings = options.settings(folder, redis.url, records.raw, offers_to)
            tally = Tally(LakeDoor(settings.lake.root))
            seconds, slots = options.checkpoint_seconds, options.parallelism
            with JobProcess(settings, folder / "job", parallelism=slots, checkpoint_seconds=seconds) as job:
                points = list(watch([job.pid], redis.pid, lambda: tally.update().processed, lambda: not job.finished))
        return between_commits(points, warmed_up)

    def wrong(records: Records, lake: Path, redis: RedisClient) -> list[str]:
        offers = [json.loads(line) for line in (lake.parent / OFFERS).read_text().splitlines()]
        return differences(records, lake, redis, offers if options.offers else None)

    return Contender(f"whole job, {options}", run, wrong if options.archive and not options.dedup else None)


@contextmanager
def offers_stream(file: Path) -> Iterator[str]:
    """Take offers in CBOR, as AWS does, at an endpoint, and write the first ones into a file, a line each."""
    requests: list[bytes] = []

    def put(request: bytes) -> None:
        if sum(map(len, requests)) < OFFERS_LOOKED_AT:
            requests.append(request)

    with serving(cbor=True, put=put) as endpoint, pytest.MonkeyPatch.context() as environ:
        environ.setenv("CBOR_ENABLED", "true")
        yield endpoint
    file.write_bytes(b"\n".join(_FLAT_OBJECT.findall(b"".join(requests))))


def between_commits(points: Sequence[Point], warmed_up: float = WARMED_UP) -> list[Point]:
    """Return the commits of a run's steady part: not before the JVM has compiled what runs, and not the last one,
    which waits for the job's end."""
    total = points[-1].processed
    return [point for point in points if warmed_up * total < point.processed < total]
