"""The stages of the batch function, one after the other in one process."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.servers import RedisServer
from clickstream.batch import earned, read
from clickstream.slices import slices
from flink_app.wiring import process
from tests.bench.job import Options
from tests.bench.measure import KINDS, Cost, cpu_of
from tests.bench.records import Records

BATCHES = 60  # the caches are cold in the first half of them, and warm in the second
COLD, WARM = "look-ups, cold", "look-ups, warm"
STAGES = ("decode", COLD, WARM, "last access", "Parquet, offers")


class Watch:
    """Adds up what each stage costs, in this process and in Redis."""

    def __init__(self, redis: int) -> None:
        self._redis = redis
        self._costs = {stage: Cost(0, 0.0, dict.fromkeys(KINDS, 0.0)) for stage in STAGES}

    @contextmanager
    def on(self, stage: str, events: int) -> Iterator[None]:
        """Charge what is done meanwhile to a stage."""
        at, ours, theirs = time.perf_counter(), time.process_time(), cpu_of(self._redis)
        yield
        spent = {"jvm": 0.0, "python": time.process_time() - ours, "redis": cpu_of(self._redis) - theirs}
        so_far = self._costs[stage]
        cpu = {kind: so_far.cpu[kind] + spent[kind] for kind in KINDS}
        self._costs[stage] = Cost(so_far.events + events, so_far.seconds + time.perf_counter() - at, cpu)

    def costs(self) -> Mapping[str, Cost]:
        """Return what each stage has cost."""
        return {stage: cost for stage, cost in self._costs.items() if cost.events}


def stages(records: Records, options: Options) -> Mapping[str, Cost]:
    """Run the job's function stage by stage, on batches of the job's size."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        records.load_names(redis.url)
        settings = options.settings(Path(folder), redis.url)
        look_up, keep_access = process(settings).steps
        watch = Watch(redis.pid)
        batches = list(itertools.islice(records.batches(settings.job.batch_size), BATCHES))
        for number, arrived in enumerate(batches):
            count = len(arrived.origin["arrival_timestamp"])
            with watch.on("decode", count):
                batch, rejected = read(arrived)
            with watch.on(COLD if number < len(batches) // 2 else WARM, count):
                batch = look_up(batch)
            with watch.on("last access", count):
                batch = keep_access(batch)
            with watch.on("Parquet, offers", count):
                offers = earned(batch) if options.offers else None
                slices(arrived, batch, rejected, archive=options.archive, offers=offers)
    return {f"{stage}, in one process": cost for stage, cost in watch.costs().items()}
