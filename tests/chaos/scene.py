"""The whole platform on this machine with doors that misbehave, events that flow, and the books of what came out."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final, Self

import msgspec

from cli.audit import Audit
from cli.job import JobProcess
from cli.ledger import Verdict
from cli.servers import Kinesalite, RedisServer
from clickstream.settings import Geo, Job, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from connectors.lake import LakeFile
from connectors.redis_door import RedisDoor
from generator.kinesis import KinesisPublisher
from generator.malformed import mixed
from generator.manifest import Manifest
from generator.pace import paced
from generator.records import Record
from generator.shoppers import Shoppers
from tests.chaos import doors
from tests.servers import S3Server

CLICKS, OFFERS = "clicks", "offers"
PATIENCE: Final = 240.0  # seconds; a bound, not a claim
Origin = tuple[str, str]
Twist = Callable[[Record], Record]


class NoProof(Exception):
    """A fault that was to be made and did not hit anything: the run proves nothing."""


class Scene:
    """Servers, doors, a publisher and the job. What the job does is judged window by window, from fault to fault."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        rate: float,
        s3: bool = False,
        kinesis: type[Kinesalite] = Kinesalite,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.rng = Random(seed)  # chance, not a secret
        self.twist: Twist | None = None
        self.accepted: set[Origin] = set()
        self.committed: set[Origin] = set()
        self.rows: list[dict[str, Any]] = []  # of enriched, without what no proof asks for
        self.reasons: dict[Origin, str] = {}
        self._archived: set[Origin] = set()
        self._seen: set[str] = set()
        self._rate, self._s3, self._kinesis = rate, s3, kinesis
        self._running = ExitStack()
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._still = threading.Event()  # the publisher has nothing under way
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            enter = starting.enter_context
            self.disk = self.folder / "disk"  # what may become full: the lake and the checkpoints
            self.disk.mkdir(parents=True, exist_ok=True)
            self.redis = enter(RedisServer(self.folder / "redis", durable=True))
            self.to_redis = doors.Pipe(self.redis.port)
            starting.callback(self.to_redis.close)
            self.kinesis = enter(self._kinesis(self.folder / "kinesis"))
            self.kinesis.create_stream(CLICKS, 2)
            self.kinesis.create_stream(OFFERS)
            self.client = self.kinesis.client()
            self.front = enter(doors.FrontOfKinesis(self.kinesis.port, self.seed))
            self.geo = enter(doors.Geo())
            self._shoppers = Shoppers(self.seed, users=300, per_second=self._rate)
            self.load_names()
            root, endpoint, behind = (self.disk / "lake").as_uri(), None, None
            if self._s3:
                s3 = enter(S3Server(self.folder / "s3"))
                s3.client().create_bucket(Bucket="lake")
                self.to_s3 = doors.Pipe(s3.port)
                starting.callback(self.to_s3.close)
                root, endpoint, behind = "s3://lake/clicks", f"http://127.0.0.1:{self.to_s3.port}", s3.endpoint
            self.lake = LakeDoor(root, behind)
            self.settings = Settings(
                lake=Lake(root=root, endpoint=endpoint),
                source=Source(stream=CLICKS, endpoint=self.front.url),
                offers=Offers(stream=OFFERS),
                redis=Redis(url=f"redis://127.0.0.1:{self.to_redis.port}/0"),
                geo=Geo(provider="ipinfo", ipinfo_url=self.geo.url),
                job=Job(remembered_places=20, remembered_names=20),  # so that Redis is asked all the time
            )
            self.job = enter(JobProcess(self.settings, self.disk / "job", checkpoint_seconds=1, recover=True))
            starting.callback(self._end_publishing)
            self._thread = threading.Thread(target=self._publish, daemon=True, name="publisher")
            self._thread.start()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start_anew(self) -> None:
        """Start another job after the first was killed, one that knows nothing of it and reads what comes next."""
        source = msgspec.structs.replace(self.settings.source, start="LATEST")
        settings = msgspec.structs.replace(self.settings, source=source)
        self.job = self._running.enter_context(JobProcess(settings, self.disk / "anew", checkpoint_seconds=1))

    def load_names(self) -> None:
        """Copy the users' names to Redis, as `clickstream users sync` does."""
        door = RedisDoor.connect(self.redis.url, timeout=10)
        door.write_names((one.customer_id, one.name) for one in self._shoppers.customers())
        door.close()

    # What flows in

    def _publish(self) -> None:
        records = mixed(self._shoppers.records(), 0.01, Random(self.seed))
        flowing = itertools.takewhile(lambda _: not self._stop.is_set(), paced(self._twisted(records), self._rate))
        try:
            KinesisPublisher(self.client, CLICKS, on_accepted=self._accept).publish(flowing)
        except BaseException as failure:  # whoever waits raises it
            self._failure = failure

    def _twisted(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            while self._paused.is_set() and not self._stop.is_set():
                self._still.set()
                time.sleep(0.02)
            twist = self.twist
            yield twist(record) if twist else record

    def _pause(self) -> None:
        """Stop the flow, and wait until the publisher has its answers.

        It asks for the next record once the stream has taken those before. What was accepted later than that would be
        in the books without having been waited for.
        """
        self._still.clear()
        self._paused.set()
        self.wait(self._still.is_set, "the stream's last answers")

    def _accept(self, _: Record, shard_id: str, sequence_number: str) -> None:
        with self._lock:
            self.accepted.add((shard_id, sequence_number))

    def _end_publishing(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    # What came out

    def look(self) -> int:
        """Take in what was committed meanwhile; return how many records are still on their way."""
        self.job.check()
        if self._failure is not None:
            raise self._failure
        for table in ("enriched", "rejected", "raw"):
            for file in self.lake.files(table):
                if file.path not in self._seen:
                    self._take_in(table, file)
                    self._seen.add(file.path)
        return self.in_flight

    def _take_in(self, table: str, file: LakeFile) -> None:
        rows = self.lake.read(file).to_pylist()
        origins = [(row["shard_id"], row["sequence_number"]) for row in rows]
        if table == "raw":
            self._archived.update(origins)
            return
        self.committed.update(origins)
        if table == "rejected":
            self.reasons.update((origin, row["reason"]) for origin, row in zip(origins, rows, strict=True))
            return
        now = datetime.now(UTC).replace(tzinfo=None)
        for row in rows:
            arrival = row["arrival_timestamp"].replace(tzinfo=None)
            kept = {name: row[name] for name in ("shard_id", "user_id", "timestamp", "geo_status", "name_status")}
            self.rows.append({**kept, "arrival": arrival, "delay": (now - arrival).total_seconds()})

    @property
    def in_flight(self) -> int:
        """How many accepted records were not committed when the lake was last looked at."""
        with self._lock:
            return len(self.accepted - (self.committed & self._archived))

    def wait(self, done: Callable[[], object], what: str, patience: float = PATIENCE) -> float:
        """Wait for something to come about, return how many seconds it took."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > patience:
                raise TimeoutError(f"{what} has not come about in {patience:g} s; the job's log is {self.job.log}")
            self.look()
            time.sleep(0.1)
        return time.monotonic() - began

    def wait_committed(self, patience: float = PATIENCE) -> float:
        """Wait until everything that is accepted by now is committed."""
        with self._lock:
            now = set(self.accepted)
        return self.wait(lambda: now <= self.committed & self._archived, "the commit of all that is accepted", patience)

    def wait_rows(self, count: int, which: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Wait for so many new rows of a kind, that arrive from now on."""
        since = datetime.now(UTC).replace(tzinfo=None)
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = [row for row in self.rows if row["arrival"] >= since and which(row)]
            return len(found) >= count

        self.wait(enough, f"{count} rows that show it")
        return found

    # The books

    def judge(self, patience: float = PATIENCE) -> Verdict:
        """Stop the flow until all is committed, and let the audit compare what was accepted with what came out."""
        self._pause()
        try:
            with suppress(TimeoutError):  # what is missing then, the audit names
                self.wait_committed(patience)
            manifest = self.folder / "accepted.ndjson"
            with Manifest(manifest) as written:
                for shard_id, sequence_number in self.accepted:
                    written.write(shard_id, sequence_number)
            return Audit(self.lake, self.client, offers=OFFERS, manifests=[manifest], scratch=self.folder)()
        finally:
            self._paused.clear()

    def judge_all(self) -> Verdict:
        """Stop the flow for good, and let the audit compare the whole stream with the whole lake, each column."""
        self._pause()
        self.wait_committed()
        return Audit(self.lake, self.client, stream=CLICKS, offers=OFFERS, deep=True, scratch=self.folder)()

    def flow_again(self) -> None:
        """Let events flow after all was judged."""
        self._paused.clear()

    # Processes

    def processes(self, *words: str) -> list[int]:
        """Return the ids of the job's processes whose command holds all these words."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self.job.pid:
                    command = (entry / "cmdline").read_bytes().decode(errors="replace")
                    if all(word in command for word in words):
                        found.append(int(entry.name))
        return found
