"""How long an event takes until its offer can be read, at a steady rate, through the real job on kinesalite."""

import argparse
import http.client
import itertools
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from cli import screen
from cli.job import JobProcess
from cli.servers import REGION, Kinesalite, RedisServer
from cli.setup import DATA, GEO
from clickstream.errors import Unavailable
from clickstream.offer import earns
from clickstream.settings import Geo, Job, Lake, Redis, Settings, Source
from connectors.redis_door import RedisDoor
from generator.records import Record
from generator.shoppers import Shoppers
from tests.bench.measure import KINDS, machine, usage
from tests.events import payload

CLICKS, OFFERS = "clicks", "offers"
SHARDS: Final = 4  # two would do for 2,000 records a second on AWS
USERS: Final = 100_000
BATCH: Final = 40  # records in one PutRecords: 50 calls a second at 2,000 events
NAP: Final = 0.02  # seconds between two looks of the reader
PATIENCE: Final = 120.0  # seconds for the job to come up, and for the last offer

T = TypeVar("T")

# kinesalite wants to see a signature, and looks no further.
_CREDENTIAL: Final = f"Credential=local/20260101/{REGION}/kinesis/aws4_request"
_HEADERS: Final = {
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Date": "20260101T000000Z",
    "Authorization": f"AWS4-HMAC-SHA256 {_CREDENTIAL}, SignedHeaders=host, Signature=none",
}

MANAGED: Final = Job(bundle_batches=100_000, bundle_millis=1_000)
"""Flink's own bundles, which Managed Flink may impose."""


class Latency(NamedTuple):
    """How long it took, in milliseconds from when an event was due to be put until its offer was read."""

    offers: int
    p50: float
    p99: float
    most: float
    late: float
    """By how much the publisher was behind its schedule at worst; this is in the others."""
    lost: int
    """Offers that never came."""
    cpu: Mapping[str, float]
    """Microseconds an event by kind of process."""


class _Record(msgspec.Struct):
    Data: bytes


class _Records(msgspec.Struct):
    Records: list[_Record]
    NextShardIterator: str


class _Put(msgspec.Struct):
    FailedRecordCount: int


class _Click(msgspec.Struct):
    click_id: str


class _Event(_Click):
    event_name: str
    additional_data: Any


def measure(job: Job | None, *, rate: int = 2_000, seconds: int = 60, warm_up: int = 30) -> Latency:
    """Publish at a steady rate, whatever becomes of it, and see when the offers can be read.

    Time runs from the moment at which an event was due: if the publisher is held up, that counts. Without a job, the
    records are read from the stream that they were put into: what publisher, kinesalite and reader take by themselves.
    """
    shoppers = Shoppers(1, users=USERS, per_second=rate)
    batches = list(_batches(itertools.islice(shoppers.records(), rate * (warm_up + seconds))))
    with tempfile.TemporaryDirectory(dir=DATA) as name, ExitStack() as running:
        redis = running.enter_context(RedisServer(Path(name) / "redis"))
        kinesis = running.enter_context(Kinesalite(Path(name) / "kinesalite"))
        kinesis.create_stream(CLICKS, SHARDS)
        kinesis.create_stream(OFFERS)
        reader = _Reader(kinesis, CLICKS if job is None else OFFERS)
        sessions: list[int] = []
        if job is not None:
            door = running.enter_context(closing(RedisDoor.connect(redis.url, timeout=10)))
            door.write_names((one.customer_id, one.name) for one in shoppers.customers())
            settings = _settings(Path(name), redis.url, kinesis.endpoint, job)
            process = running.enter_context(JobProcess(settings, Path(name) / "job", checkpoint_seconds=10))
            sessions = [process.pid]
            _put(_Kinesis(kinesis.endpoint), [Record("1", payload(event_name="ViewContent", percent_viewed=100))])
            _wait_for_first(reader, process)
        start = time.monotonic() + 1
        due = _due(batches, start, BATCH / rate, warm_up, everything=job is None)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        publisher = multiprocessing.get_context("fork").Process(
            target=_publish, args=(kinesis.endpoint, batches, start, BATCH / rate, theirs), daemon=True
        )
        publisher.start()
        theirs.close()
        running.callback(publisher.kill)
        before: Mapping[str, float] = {}
        while time.monotonic() < start + warm_up + seconds + PATIENCE and due.keys() - reader.seen.keys():
            reader.look()
            if not before and time.monotonic() >= start + warm_up:
                before, _ = usage(sessions, redis.pid)
        after, _ = usage(sessions, redis.pid)
        cpu = {kind: (after.get(kind, 0.0) - before.get(kind, 0.0)) / (rate * seconds) * 1e6 for kind in KINDS}
        waits = sorted((reader.seen[click] - at) * 1000 for click, at in due.items() if click in reader.seen)
        late = ours.recv() * 1000
    return Latency(len(waits), _share(waits, 0.5), _share(waits, 0.99), waits[-1], late, len(due) - len(waits), cpu)


class _Kinesis:
    """Asks kinesalite without AWS' library, which takes ten times the CPU: it would be measured too."""

    def __init__(self, endpoint: str) -> None:
        self._connection = http.client.HTTPConnection(endpoint.removeprefix("http://"))

    def ask(self, operation: str, body: bytes, answer: type[T]) -> T:
        self._connection.request("POST", "/", body, {**_HEADERS, "X-Amz-Target": f"Kinesis_20131202.{operation}"})
        response = self._connection.getresponse()
        said = response.read()
        if response.status != http.HTTPStatus.OK:
            raise Unavailable(f"kinesalite answered {operation} with {said!r}")
        return msgspec.json.decode(said, type=answer)


class _Reader:
    """Reads all shards of a stream over and over, and keeps when it has first seen each click."""

    def __init__(self, kinesis: Kinesalite, stream: str) -> None:
        self._kinesis = _Kinesis(kinesis.endpoint)
        self.seen: dict[str, float] = {}
        where = {"StreamName": stream, "ShardIteratorType": "TRIM_HORIZON"}
        with closing(kinesis.client()) as client:
            shards = client.list_shards(StreamName=stream)["Shards"]
            self._iterators = [
                client.get_shard_iterator(ShardId=shard["ShardId"], **where)["ShardIterator"] for shard in shards
            ]

    def look(self) -> None:
        """Read each shard once."""
        for number, iterator in enumerate(self._iterators):
            asked = msgspec.json.encode({"ShardIterator": iterator, "Limit": 10_000})
            answer = self._kinesis.ask("GetRecords", asked, _Records)
            now = time.monotonic()
            self._iterators[number] = answer.NextShardIterator
            for record in answer.Records:
                self.seen.setdefault(msgspec.json.decode(record.Data, type=_Click).click_id, now)
        time.sleep(NAP)


def _settings(folder: Path, redis: str, endpoint: str, job: Job) -> Settings:
    return Settings(
        lake=Lake(root=(folder / "lake").as_uri()),
        source=Source(stream=CLICKS, endpoint=endpoint),
        redis=Redis(url=redis),
        geo=Geo(mmdb=str(GEO)),
        job=job,
    )


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(itertools.islice(records, BATCH)):
        yield batch


def _due(
    batches: Iterable[Sequence[Record]], start: float, interval: float, warm_up: int, *, everything: bool
) -> dict[str, float]:
    """Say when each click was due, of those that are looked for: they earn an offer, and come after warming up."""
    due = {}
    for number, batch in enumerate(batches):
        for event in (msgspec.json.decode(record.payload, type=_Event) for record in batch):
            if everything or earns(event.event_name, event.additional_data["percent_viewed"]):
                due[event.click_id] = start + number * interval
    return {click: at for click, at in due.items() if at >= start + warm_up}


def _publish(
    endpoint: str, batches: Sequence[Sequence[Record]], start: float, interval: float, told: Connection
) -> None:
    """Put each batch when it is due, late ones at once, and tell how late the latest was."""
    kinesis = _Kinesis(endpoint)
    late = 0.0
    for number, batch in enumerate(batches):
        due = start + number * interval
        time.sleep(max(0.0, due - time.monotonic()))
        late = max(late, time.monotonic() - due)
        _put(kinesis, batch)
    told.send(late)


def _put(kinesis: _Kinesis, batch: Iterable[Record]) -> None:
    entries = [{"PartitionKey": record.partition_key, "Data": record.payload} for record in batch]
    asked = msgspec.json.encode({"StreamName": CLICKS, "Records": entries})
    if failed := kinesis.ask("PutRecords", asked, _Put).FailedRecordCount:
        raise Unavailable(f"kinesalite refused {failed} records")


def _wait_for_first(reader: _Reader, job: JobProcess) -> None:
    until = time.monotonic() + PATIENCE
    while not reader.seen:
        job.check()
        reader.look()
        if time.monotonic() > until:
            raise Unavailable(f"no offer within {PATIENCE:g} s. The job's log is {job.log}")


def _share(waits: Sequence[float], share: float) -> float:
    return waits[min(len(waits), math.ceil(len(waits) * share)) - 1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second [%(default)s]")
    parser.add_argument("--seconds", type=int, default=60, help="to measure, after warming up [%(default)s]")
    parser.add_argument("--warm-up", type=int, default=30, help="seconds [%(default)s]")
    parser.add_argument("--batch-millis", type=int, action="append", help="try these instead of what there is")
    parser.add_argument("--bundled", action="store_true", help="try them in bundles that Managed Flink may impose")
    given = parser.parse_args()
    jobs: dict[str, Job | None] = {"without the job": None, "as it is": Job(), "bundles of Managed Flink": MANAGED}
    if given.batch_millis:
        bundles = MANAGED if given.bundled else Job()
        jobs = {f"batches of {millis} ms": replace(bundles, batch_millis=millis) for millis in given.batch_millis}
    rows = []
    for name, job in jobs.items():
        found = measure(job, rate=given.rate, seconds=given.seconds, warm_up=given.warm_up)
        times = [f"{one:,.0f}" for one in (found.p50, found.p99, found.most, found.late)]
        cpu = [f"{found.cpu[kind]:.0f}" if job else "" for kind in KINDS]
        rows.append([name, found.offers, *times, found.lost, *cpu])
    columns = [
        "",
        "read",
        "p50 ms",
        "p99 ms",
        "most",
        "publisher late",
        "lost",
        *(f"{kind} µs/event" for kind in KINDS),
    ]
    screen.table(machine("apache-flink"), columns, rows, right=tuple(range(1, len(columns))))


if __name__ == "__main__":
    main()
