"""What look-ups and last access cost a worker, its caches cold and then warm, and how much memory it takes."""

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import Queue
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cli import screen
from cli.servers import RedisServer
from cli.setup import GEO
from clickstream.batch import Arrived, Batch, origin
from clickstream.settings import Geo, Lake, Offers, Redis, Settings
from connectors.redis_door import RedisDoor
from enrichment.metrics import Key
from enrichment.process import Process
from enrichment.steps import Step
from flink_app.wiring import process
from generator.shoppers import Shoppers
from tests.bench.measure import machine
from tests.bench.records import from_addresses

BATCH = 10_000
START = np.datetime64("2026-01-01T00:00:00", "us")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="in each pass [%(default)s]")
    parser.add_argument("--addresses", type=int, help="so many, all equally often, instead of the shoppers' own")
    parser.add_argument("--users", type=int, default=100_000, help="how many shoppers there are [%(default)s]")
    parser.add_argument("--passes", type=int, default=2, help="the same events again, caches warm [%(default)s]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        door = RedisDoor.connect(redis.url, timeout=10)
        door.write_names((one.customer_id, one.name) for one in Shoppers(1, users=given.users).customers())
        door.close()
        run = process(
            Settings(
                lake=Lake(root=Path(folder, "lake").as_uri()),
                offers=Offers(enabled=False),
                redis=Redis(url=redis.url),
                geo=Geo(mmdb=str(GEO)),
            )
        )
        rows = [[f"pass {number + 1}", *spent(run, made_elsewhere(given), redis)] for number in range(given.passes)]
    columns = ["", "events", "Python µs/event", "of it look-ups", "last access", "Redis µs/event", "peak MB", "own MB"]
    title = f"{machine('pyarrow', 'redis')}: {given.users:,} shoppers, " + (
        f"{given.addresses:,} addresses" if given.addresses else "each their own"
    )
    screen.table(title, columns, rows, right=range(1, 8))


@dataclass
class Timed:
    """A step, and the CPU it takes."""

    step: Step
    seconds: float = 0.0

    def __call__(self, batch: Batch) -> Batch:
        began = time.process_time()
        done = self.step(batch)
        self.seconds += time.process_time() - began
        return done


def spent(run: Process, batches: Iterator[Arrived], redis: RedisServer) -> list[Any]:
    """Return the CPU of a pass in microseconds an event, and this process' memory in MB.

    That is its peak, and at the end what is not a file's: the geo database in memory is there once for all workers.
    """
    steps = [Timed(step) for step in run.steps]
    run = replace(run, steps=steps)
    events, python, of_redis = 0, 0.0, redis_cpu(redis)
    for batch in batches:
        began = time.process_time()
        run(batch)
        python += time.process_time() - began
        events += len(batch.payload)
    of_redis = redis_cpu(redis) - of_redis
    if failed := run.metrics.take().get(Key("redis_errors")):
        sys.exit(f"{failed} trips to Redis came to nothing: the machine is too busy to measure anything")
    each = [f"{s / events * 1e6:.2f}" for s in (python, *(step.seconds for step in steps), of_redis)]
    return [f"{events:,}", *each, megabytes("VmHWM"), megabytes("RssAnon")]


def redis_cpu(redis: RedisServer) -> float:
    """Return the seconds that Redis has used so far."""
    with redis.client() as client:
        used: Any = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def megabytes(what: str) -> int:
    """Return what Linux says of this process' memory."""
    said = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(said[1]) // 1024 if said else 0


def made_elsewhere(given: argparse.Namespace) -> Iterator[Arrived]:
    """Yield batches made by another process, so that neither their cost nor their memory is ours."""
    context = multiprocessing.get_context("spawn")
    queue: Queue[list[bytes] | None] = context.Queue(2)
    maker = context.Process(target=make, args=(queue, given), daemon=True)
    maker.start()
    first = 0
    while (payloads := queue.get()) is not None:
        numbers = range(first, first + len(payloads))
        arrival = pa.array(START + np.asarray(numbers).astype("timedelta64[us]") * 10).cast(pa.timestamp("us", "UTC"))
        shards = [f"shardId-{number % 4:012}" for number in numbers]
        yield Arrived(
            pa.array(payloads, pa.binary()),
            origin(arrival, shards, [f"4959033827149{number:043}" for number in numbers]),
        )
        first += len(payloads)
    maker.join()


def make(queue: "Queue[list[bytes] | None]", given: argparse.Namespace) -> None:
    """Put the events of a pass into the queue."""
    payloads = (record.payload for record in islice(Shoppers(1, users=given.users).records(), given.events))
    if given.addresses:
        payloads = from_addresses(given.addresses, payloads)
    while some := list(islice(payloads, BATCH)):
        queue.put(some)
    queue.put(None)


if __name__ == "__main__":
    main()
