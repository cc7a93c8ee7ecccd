"""The whole pipeline on this machine: servers, users, events, the job, and the sum of it."""

# ruff: noqa: PLC0415  # what is not needed to start the job is imported while it starts

import itertools
import json
import os
import random
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from cli import screen
from cli.job import JobProcess, check_folder
from cli.metrics import Glance
from cli.servers import Kinesalite, Localemu, RedisServer, is_in_use
from cli.tally import Tally
from clickstream.errors import Refused, Unavailable
from clickstream.settings import Dedup, Geo, Offers, Privacy, Settings, Source, flink_uri
from clickstream.settings import Lake as LakeSettings
from clickstream.settings import Redis as RedisSettings
from connectors.kinesis_reader import read
from connectors.lake import Lake
from flink_app.state import check as check_state
from flink_app.state import is_savepoint, latest
from generator.kinesis import KinesisPublisher
from generator.lines import records_in
from generator.malformed import mixed
from generator.manifest import Manifest, read_manifest
from generator.pace import paced
from generator.records import Publisher, Record
from generator.shoppers import Shoppers

CLICKS, OFFERS = "clicks", "offers"
PRIVACY_KEY: Final = "CLICKSTREAM_PRIVACY_KEY"
STUCK_SECONDS: Final = 180.0
"""How long nothing may happen before the run is given up."""
SHORT: Final = 200_000
"""Up to so many events a run is over sooner if the JVM does not make its code as fast as it can."""


@dataclass(frozen=True)
class Run:
    """What to run: `clickstream run --help` explains each."""

    folder: Path
    lake: str
    geo: Path
    lake_endpoint: str | None = None
    input: Path | None = None
    users: Path | None = None
    report: Path | None = None
    events: int | None = 20_000
    malformed: float = 0.01
    seed: int = 1
    rate: float | None = None
    follow: bool = False
    ip: Literal["keep", "truncate", "hash"] = "keep"
    fresh: bool = False
    begin_from: Path | None = None
    dedup: bool = False
    manifest: Path | None = None
    shards: int = 2
    parallelism: int = 2
    through_api: bool = False

    def __call__(self) -> dict[str, Any]:
        """Run it all and return the report; whatever was started is stopped, also on Ctrl-C."""
        began = time.monotonic()
        self._check()
        lake = Lake(self.lake, self.lake_endpoint)
        lake.check()
        tally = Tally(lake)
        if self.fresh:
            self._forget()
        state = self.begin_from or (latest(self.home / "flink") if self.follow else None)
        manifest = self.manifest or self.home / "accepted.ndjson"
        owed = open_entries(manifest, lake) if self.follow else []
        with ExitStack() as running:
            screen.step("starting Redis and kinesalite")
            redis = running.enter_context(RedisServer(self.home / "redis", durable=True, fresh=not self.follow))
            kinesis = running.enter_context(Kinesalite(self.home / "kinesalite", durable=self.follow))
            kinesis.create_stream(CLICKS, self.shards)
            kinesis.create_stream(OFFERS)
            sent_before = sum(1 for _ in read(kinesis.client(), OFFERS)) if self.follow else 0
            screen.step(self._starting(state, len(owed)))
            settings = self._settings(redis.url, kinesis.endpoint)
            job = JobProcess(
                settings,
                self.home / "flink",
                parallelism=self.parallelism,
                checkpoint_seconds=10 if self.follow else 1,
                recover=self.follow,
                begin_from=self.begin_from,
                short=not self.follow and self.events is not None and self.events <= SHORT,
            )
            running.enter_context(job)
            self._load_users(redis.url, state)
            accepted = running.enter_context(Manifest(manifest))
            publishing = Publishing(self._records(), accepted)
            for shard_id, sequence_number in owed:
                publishing.accept(shard_id, sequence_number)
            publisher = self._publisher(kinesis, publishing, running)
            running.callback(publishing.stop)
            publishing.start(publisher)
            self._wait(job, publishing, tally)
            screen.step("committing what is open, stopping the job")
            job.stop()
            tally.update()
            publishing.stop()
            accepted.close()
            offers = [
                json.loads(one.data) for one in itertools.islice(read(kinesis.client(), OFFERS), sent_before, None)
            ]
            from cli.audit import Audit, check

            screen.step("auditing what came out against what the stream accepted")
            # The stream holds the offers of earlier runs too: with a time given, an offer more is no difference.
            since = datetime.fromtimestamp(0, UTC) if sent_before else None
            # A front door does not say where the stream put a record: then the stream itself is asked.
            books = {"stream": CLICKS} if self.through_api else {"manifests": [manifest]}
            audit = Audit(lake, kinesis.client(), offers=OFFERS, scratch=self.folder, since=since, **books)
            verdict = audit(tally.new)
        facts = {
            "published": publishing.published,
            "refused_by_stream": 0 if self.through_api else sum(publishing.refused.values()),
            "refused_by_front": sum(publishing.refused.values()) if self.through_api else 0,
            **tally.facts(),
            "offers": len(offers),
            "seconds": round(time.monotonic() - began, 1),
        }
        if self.report:
            self.report.write_text(json.dumps(facts, indent=2) + "\n")
        show(facts, tally, offers, self.lake)
        door = "the front door" if self.through_api else "the stream"
        for reason, count in publishing.refused.items():
            screen.err.print(f"{count:,} records are not among them, {door} refused them: {reason}", markup=False)
        check(verdict)
        screen.out.print(str(verdict), markup=False)
        return facts

    @property
    def home(self) -> Path:
        """Where this run's servers and job keep what they must not forget."""
        return self.folder / "follow" if self.follow else self.folder

    def _forget(self) -> None:
        """Remove what the last run has left, unless one is running."""
        if is_in_use(self.home / "redis"):
            raise Refused(f"another run is at work in {self.home}. Next: end that run first")
        shutil.rmtree(self.home, ignore_errors=True)

    def _starting(self, state: Path | None, owed: int) -> str:
        if state is None:
            return "starting the job"
        whence = "where the last run was stopped" if is_savepoint(state) else f"the last run's {state.name}"
        return f"starting the job from {whence}, {owed:,} records are still to come out"

    def _check(self) -> None:
        check_folder(self.folder)
        if (self.fresh or self.begin_from) and not self.follow:
            raise Refused("--fresh and --begin-from go with --follow: without it a run always begins anew")
        if self.follow:
            check_state(self.home / "flink", self.begin_from)
        for file, option in ((self.input, "--input"), (self.users, "--users")):
            if file is not None and not file.is_file():
                raise Refused(f"{option} {file}: there is no such file")
        if self.report and not self.report.absolute().parent.is_dir():
            raise Refused(f"--report {self.report}: there is no such folder")

    def _settings(self, redis_url: str, endpoint: str) -> Settings:
        return Settings(
            lake=LakeSettings(root=flink_uri(self.lake), endpoint=self.lake_endpoint),
            source=Source(stream=CLICKS, endpoint=endpoint),
            offers=Offers(stream=OFFERS),
            redis=RedisSettings(url=redis_url),
            geo=Geo(mmdb=str(self.geo)),
            privacy=Privacy(ip=self.ip, key=None if self.ip == "keep" else self._privacy_key()),
            dedup=Dedup(enabled=self.dedup),
        )

    def _privacy_key(self) -> str:
        """Return where the key of hashes is; runs in the same folder share it, so that their hashes are the same."""
        file = self.folder / "privacy.key"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32))
        os.environ[PRIVACY_KEY] = file.read_text()  # the job's process inherits it
        return f"env:{PRIVACY_KEY}"

    def _load_users(self, redis_url: str, state: Path | None) -> None:
        from connectors.customers import customers_in
        from connectors.redis_door import RedisDoor
        from connectors.users import Users, sync_names

        database = self.folder / "users.db"
        if state is None:
            database.unlink(missing_ok=True)  # a run's users are its own, not those of the run before
        users = Users(f"sqlite:///{database.absolute()}")
        users.create()
        if self.users is not None:
            users.load(customers_in(self.users))
        elif self.input is None:
            users.load(self._shoppers().customers())
        redis = RedisDoor.connect(redis_url)
        synced = sync_names(users, redis)
        screen.step(f"names in Redis: {synced.copied:,}")
        redis.close()
        users.close()

    def _shoppers(self) -> Shoppers:
        rate = self.rate or 100.0
        start = datetime.now(UTC)
        if not self.follow and self.events:
            start -= timedelta(seconds=self.events / rate)  # so that the last event is of now
        # Who goes on publishes further clicks of the same people, not the same clicks again.
        chapter = int(start.timestamp()) if self.follow else 0
        return Shoppers(self.seed, start=start, per_second=rate, chapter=chapter)

    def _records(self) -> Iterator[Record]:
        if self.input is not None:
            records = records_in(self.input)
        else:
            records = mixed(self._shoppers().records(), self.malformed, random.Random(self.seed))  # noqa: S311
        if not self.follow and self.events is not None:
            records = itertools.islice(records, self.events)
        return iter(paced(records, self.rate)) if self.rate else records

    def _publisher(self, kinesis: Kinesalite, publishing: "Publishing", running: ExitStack) -> Publisher:
        if not self.through_api:
            screen.step(f"publishing to {kinesis.endpoint}, stream {CLICKS}")
            return KinesisPublisher(kinesis.client(), CLICKS, on_accepted=lambda _, *place: publishing.accept(*place))
        from cli.front import loopback_session, open_front
        from generator.http import HttpPublisher

        screen.step("opening the front door")
        localemu = running.enter_context(Localemu(self.folder / "localemu", kinesis.endpoint))
        url = open_front(localemu, CLICKS)
        screen.step(f"posting to {url}/events")
        # a request that is only slow is not sent again: it would be counted twice
        return HttpPublisher(
            url, session=loopback_session(), batch=100, timeout=STUCK_SECONDS, on_accepted=publishing.count
        )

    def _wait(self, job: JobProcess, publishing: "Publishing", tally: Tally) -> None:
        """Wait until all that was published is committed; to follow, until Ctrl-C and then for the rest."""
        rate = Rate()
        moved = time.monotonic()
        seen = (0, 0)
        recoveries = 0
        glance = Glance(self.folder, tally.lake)
        with screen.progress() as progress:
            while True:
                try:
                    job.check()
                    if job.recoveries > recoveries:
                        recoveries = job.recoveries
                        screen.step(f"the job has failed; it goes on from its last checkpoint, see {job.log}")
                    publishing.check()
                    tally.update()
                    processed, published = tally.processed, publishing.published
                    done = tally.rows["raw"] >= published and processed >= published
                    if publishing.finished and done and job.started:
                        return
                    waiting = "" if processed or not publishing.finished else " (Flink is warming up)"
                    progress.show(
                        f"published {published:,} · committed {processed:,} · {rate.of(processed):,.0f}/s"
                        f" · lag {max(0, published - processed):,}{waiting}{glance if self.follow else ''}"
                    )
                    if (published, processed) != seen:
                        seen, moved = (published, processed), time.monotonic()
                    elif not self.follow and time.monotonic() - moved > STUCK_SECONDS:
                        raise Unavailable(f"nothing has moved for {STUCK_SECONDS:g} s. The job's log is {job.log}")
                    time.sleep(0.25)
                except KeyboardInterrupt:
                    if not self.follow or publishing.finished:
                        raise
                    screen.step("no more is published; waiting for the rest to be committed (Ctrl-C again to give up)")
                    publishing.stop()


@dataclass
class Publishing:
    """Publishes in a thread of its own, counting what the stream has accepted."""

    records: Iterator[Record]
    manifest: Manifest
    published: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # reason -> records that are not taken
    _stop: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(daemon=True)

    def start(self, publisher: Publisher) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._publish, args=(publisher,), daemon=True, name="publisher")
        self._thread.start()

    def stop(self) -> None:
        """Publish no more, and wait for what is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def finished(self) -> bool:
        """Whether all there was to publish is published."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what publishing died of."""
        if self._failure is not None:
            raise self._failure

    def _publish(self, publisher: Publisher) -> None:
        try:
            outcome = publisher.publish(itertools.takewhile(lambda _: not self._stop.is_set(), self.records))
            self.refused = dict(outcome.refused)
        except BaseException as failure:  # the main thread raises it
            self._failure = failure

    def accept(self, shard_id: str, sequence_number: str) -> None:
        """Count a record that the stream has, and write down where."""
        self.manifest.write(shard_id, sequence_number)
        self.published += 1

    def count(self, accepted: int) -> None:
        """Count records that the stream has, and nobody said where."""
        self.published += accepted


def open_entries(manifest: Path, lake: Lake) -> list[tuple[str, str]]:
    """List what an earlier run has written down as accepted and the lake does not hold yet, by shard and number."""
    if not manifest.is_file():
        return []
    committed = {
        origin
        for table in ("enriched", "rejected", "suppressed")
        for file in lake.files(table)
        for batch in lake.batches(file, ("shard_id", "sequence_number"))
        for origin in zip(batch["shard_id"].to_pylist(), batch["sequence_number"].to_pylist(), strict=True)
    }
    return [origin for origin in read_manifest(manifest) if origin not in committed]


class Rate:
    """How fast a count grows, over the last few seconds."""

    def __init__(self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._points: list[tuple[float, int]] = []

    def of(self, count: int) -> float:
        """Add a point, return the rate a second."""
        now = self._clock()
        self._points = [(at, was) for at, was in self._points if now - at <= self._seconds] + [(now, count)]
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end > start else 0.0


def show(facts: dict[str, Any], tally: Tally, offers: list[dict[str, Any]], lake: str) -> None:
    """Print the sum of a run: counts that add up, and a few rows of each kind."""
    published = facts["published"]
    rows = [
        ["published", published, "accepted by the stream"],
        ["= enriched", facts["enriched"], _size(facts["enriched_bytes"])],
        ["+ rejected", facts["rejected"], _reasons(facts["rejected_reasons"])],
        ["+ suppressed", facts["suppressed"], "events of a click_id seen before, with --dedup"],
        ["raw", facts["raw"], _size(facts["raw_bytes"])],
        ["offers", facts["offers"], "ViewContent with more than 60 % viewed"],
        ["users seen", facts["users_seen"], "each with a last access in Redis"],
        ["unknown location", facts["unknown_location"], "private, reserved or in no database"],
    ]
    screen.table(f"{published:,} events in {facts['seconds']} s", ["", "records", ""], rows, right=(1,))
    columns = ["timestamp", "user_id", "name", "event_name", "user_ip", "country", "region", "city"]
    some = [[_short(row[column]) for column in columns] for row in tally.some("enriched", 5)]
    if some:
        screen.table("enriched, for example", columns, some)
    if offers:
        columns = ["offer_id", "timestamp", "user_id", "product_id", "price", "percent_viewed"]
        screen.table("offers, for example", columns, [[_short(one[c]) for c in columns] for one in offers[:3]])
    screen.out.print(f"\nThe lake is in {lake}", markup=False)


def _reasons(counts: dict[str, int]) -> str:
    """Name the four that are most frequent, and count the others, so that the line adds up."""
    by_count = sorted(counts.items(), key=lambda item: -item[1])
    others = sum(count for _, count in by_count[4:])
    named = [f"{count} {reason}" for reason, count in by_count[:4]]
    return ", ".join([*named, f"{others} others"] if others else named)


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB of Parquet" if count >= 100_000 else f"{count / 1000:.1f} kB of Parquet"


def _short(value: object) -> object:
    return (
        value.strftime("%H:%M:%S.%f")[:-3] if isinstance(value, datetime) else str(value) if value is not None else None
    )
