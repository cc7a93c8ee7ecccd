"""Records from raw or rejected go through the job once more, and replace what they came to before."""

import time
import uuid
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cli import screen
from cli.job import JobProcess, check_folder
from cli.servers import RedisServer
from cli.tally import Tally
from clickstream.errors import Refused
from clickstream.settings import Geo, Offers, Settings, Source, flink_uri
from clickstream.settings import Lake as LakeSettings
from clickstream.settings import Redis as RedisSettings
from connectors.customers import customers_in
from connectors.lake import Lake, LakeFile
from connectors.redis_door import RedisDoor
from connectors.users import Users, sync_names

STAGING: Final = "_replay"
"""A folder of the lake that queries do not look into, since its name begins with an underscore."""

OUTCOMES: Final = ("enriched", "rejected")


@dataclass(frozen=True)
class Replay:
    """What to replay: `clickstream replay --help` explains each."""

    source: str
    folder: Path
    lake: str
    geo: Path
    lake_endpoint: str | None = None
    redis_url: str | None = None
    redis_password: str | None = None
    users: Path | None = None
    offers: str | None = None
    endpoint: str | None = None
    parallelism: int = 2

    def __call__(self) -> dict[str, Any]:
        """Replay, replace, and return what it came to."""
        began = time.monotonic()
        check_folder(self.folder)
        records = self._count()
        run = uuid.uuid4().hex[:12]
        lake = Lake(self.lake, self.lake_endpoint)
        staging_root = f"{flink_uri(self.lake)}/{STAGING}/{run}"
        staging = Lake(staging_root, self.lake_endpoint)
        with ExitStack() as running:
            running.callback(lake.remove_table, f"{STAGING}/{run}")
            redis_url = self.redis_url or self._own_redis(running)
            settings = self._settings(staging_root, redis_url)
            screen.step(f"replaying {records:,} records from {self.source}")
            job = JobProcess(settings, self.folder / "replay", parallelism=self.parallelism, checkpoint_seconds=5)
            running.enter_context(job)
            tally = Tally(staging)
            with screen.progress() as progress:
                while not job.finished:
                    progress.show(f"{tally.update().processed:,} of {records:,} processed")
                    time.sleep(0.25)
            tally.update()
            if tally.processed != records:
                raise Refused(
                    f"{records:,} records were read and {tally.processed:,} came out: the lake is left as it was."
                    f" The job's log is {job.log}"
                )
            facts = tally.facts()
            screen.step("replacing what these records came to before")
            dropped = replace(lake, staging, tally, run)
        facts |= {"replaced": dropped, "seconds": round(time.monotonic() - began, 1)}
        rows = [
            ["replayed", records],
            ["= enriched", facts["enriched"]],
            ["+ rejected", facts["rejected"]],
            ["took the place of", dropped],
        ]
        screen.table(f"{records:,} records in {facts['seconds']} s", ["", "records"], rows, right=(1,))
        return facts

    def _count(self) -> int:
        """Count the records to replay; a folder without any is a mistake."""
        source = Lake(self.source, self.lake_endpoint)
        files = source.files("")
        if not files:
            raise Refused(f"there is no Parquet in {self.source}: give a folder such as LAKE/raw or LAKE/rejected")
        missing = {"payload", "shard_id", "sequence_number", "arrival_timestamp"} - set(source.columns(files[0]))
        if missing:
            raise Refused(f"{self.source} holds no records to replay, {', '.join(sorted(missing))} is missing there")
        this_hour = datetime.now(UTC).strftime("year=%Y/month=%m/day=%d/hour=%H")
        if any(file.path.find(this_hour) >= 0 for file in files):
            screen.err.print(
                "this hour is among them: if a job is writing to this lake, replay the hour again once it is over"
            )
        return sum(source.rows(file) for file in files)

    def _own_redis(self, running: ExitStack) -> str:
        server = running.enter_context(RedisServer(self.folder / "replay-redis"))
        database = self.folder / "users.db"
        with closing(RedisDoor.connect(server.url)) as door:
            if self.users is not None:
                door.write_names((customer.customer_id, customer.name) for customer in customers_in(self.users))
            elif database.is_file():
                with Users(f"sqlite:///{database.absolute()}") as users:
                    sync_names(users, door)
        return server.url

    def _settings(self, root: str, redis_url: str) -> Settings:
        return Settings(
            lake=LakeSettings(root=root, endpoint=self.lake_endpoint, raw=False),
            source=Source(replay=flink_uri(self.source), endpoint=self.endpoint),
            offers=Offers(enabled=self.offers is not None, stream=self.offers or "offers"),
            redis=RedisSettings(url=redis_url, password=self.redis_password),
            geo=Geo(mmdb=str(self.geo)),
        )


def replace(lake: Lake, staging: Lake, tally: Tally, run: str) -> int:
    """Put the new rows in the place of all older rows of the same origins; return how many older rows there were.

    New files come first and old ones go last: whoever dies in between leaves rows twice, never none, and the same
    replay done again mends it. Rows of other origins stay, in a file of their own where they have to. What was
    suppressed stays suppressed.
    """
    dropped = 0
    by_partition: dict[str, dict[str, list[LakeFile]]] = defaultdict(lambda: defaultdict(list))
    for table in OUTCOMES:
        for file in tally.new[table]:
            by_partition[file.partition][table].append(file)
    before = {table: lake.files(table) for table in OUTCOMES}
    for partition, staged in sorted(by_partition.items()):
        origins = pa.concat_arrays([_origins(staging, file) for files in staged.values() for file in files])
        suppressed = _suppressed(lake, partition)
        for table in OUTCOMES:
            for number, file in enumerate(staged[table]):
                again = pc.is_in(_origins(staging, file), value_set=suppressed)
                if pc.any(again).as_py():
                    rows = staging.read(file).filter(pc.invert(again))
                    lake.write(table, partition, f"part-replay-{run}-{number}", rows)
                else:
                    staging.adopt(file, lake, table, f"part-replay-{run}-{number}")
            for number, file in enumerate(old for old in before[table] if old.partition == partition):
                again = pc.is_in(_origins(lake, file), value_set=origins)
                count = pc.sum(again).as_py() or 0
                if count == 0:
                    continue
                if count < len(again):
                    rows = lake.read(file).filter(pc.invert(again))
                    lake.write(table, partition, f"part-kept-{run}-{number}", rows)
                lake.remove(file)
                dropped += count
    return dropped


def _suppressed(lake: Lake, partition: str) -> pa.Array:
    files = [file for file in lake.files("suppressed") if file.partition == partition]
    return pa.concat_arrays([pa.array([], pa.string()), *(_origins(lake, file) for file in files)])


def _origins(lake: Lake, file: LakeFile) -> pa.Array:
    table = lake.read(file, ["shard_id", "sequence_number"])
    return pc.binary_join_element_wise(table["shard_id"], table["sequence_number"], "/").combine_chunks()
