"""Running the job in tests: records published, the job until all are committed, and what it wrote."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.fs as fs
import pyarrow.parquet as pq

from cli.job import JobProcess
from cli.servers import Kinesalite
from cli.tally import Tally
from clickstream.settings import Settings
from connectors.lake import Lake
from generator.kinesis import KinesisPublisher
from generator.records import Record
from tests import oracle

PATIENCE = 300.0  # seconds; a bound, not a claim
GEO = Path(__file__).parents[1] / ".data" / "geo" / "GeoLite2-City.mmdb"


class Written(NamedTuple):
    """What a job has left behind, read with nobody's code but pyarrow's and boto3's."""

    enriched: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    raw: list[dict[str, Any]]
    offers: list[dict[str, Any]]


def publish(kinesalite: Kinesalite, stream: str, records: Iterable[Record]) -> int:
    with closing(kinesalite.client()) as client:
        return KinesisPublisher(client, stream).publish(records).accepted


def stream_records(kinesalite: Kinesalite, stream: str) -> list[oracle.Arrived]:
    """Read a stream by boto3 alone: what was accepted, and where."""
    arrived = []
    with closing(kinesalite.client()) as client:
        for shard in client.list_shards(StreamName=stream)["Shards"]:
            iterator = client.get_shard_iterator(
                StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while True:
                answer = client.get_records(ShardIterator=iterator, Limit=1000)
                iterator = answer["NextShardIterator"]
                arrived += [
                    oracle.Arrived(
                        one["Data"],
                        one["ApproximateArrivalTimestamp"].astimezone(UTC),
                        shard["ShardId"],
                        one["SequenceNumber"],
                    )
                    for one in answer["Records"]
                ]
                if not answer["Records"]:
                    break
    return arrived


def run_until_committed(
    settings: Settings, folder: Path, count: int, *, parallelism: int = 2, recover: bool = False
) -> Path:
    """Run the job until so many records have come out and are committed, stop it in order; return its log."""
    tally = Tally(Lake(settings.lake.root, settings.lake.endpoint))
    with JobProcess(
        settings, folder, parallelism=parallelism, checkpoint_seconds=1, recover=recover, short=True
    ) as job:
        deadline = time.monotonic() + PATIENCE
        while tally.update().processed < count or (settings.lake.raw and tally.rows["raw"] < count):
            job.check()
            assert time.monotonic() < deadline, f"{dict(tally.rows)} of {count} after {PATIENCE} s, see {job.log}"
            time.sleep(0.2)
        job.stop()
    return job.log


def written(settings: Settings, kinesalite: Kinesalite) -> Written:
    """Read the lake and the offers stream."""
    offers = [msgspec.json.decode(one.payload) for one in stream_records(kinesalite, settings.offers.stream)]
    return Written(*(table_rows(settings, table) for table in ("enriched", "rejected", "raw")), offers)


def table_rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    system, root = file_system(settings)
    rows = []
    for path in data_files(settings, table):
        partition = dict(part.split("=") for part in path.removeprefix(f"{root}/{table}/").split("/")[:-1])
        with system.open_input_file(path) as file:
            rows += [{**_in_utc(row), **partition} for row in pq.ParquetFile(file).read().to_pylist()]
    return rows


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    """Say that the lake's timestamps are UTC: Flink writes them without a zone (docs/decisions/0002)."""
    return {k: v.replace(tzinfo=UTC) if isinstance(v, datetime) and not v.tzinfo else v for k, v in row.items()}


def data_files(settings: Settings, table: str) -> list[str]:
    system, root = file_system(settings)
    found = system.get_file_info(fs.FileSelector(f"{root}/{table}", recursive=True, allow_not_found=True))
    return [one.path for one in found if one.is_file and not one.base_name.startswith((".", "_"))]


def file_system(settings: Settings) -> tuple[fs.FileSystem, str]:
    if settings.lake.root.startswith("s3://"):
        endpoint = str(settings.lake.endpoint).removeprefix("http://")
        system = fs.S3FileSystem(
            endpoint_override=endpoint, scheme="http", access_key="local", secret_key="local", region="us-east-1"
        )
        return system, settings.lake.root.removeprefix("s3://")
    return fs.LocalFileSystem(), settings.lake.root.removeprefix("file://")


def last_accesses(redis: Any) -> Mapping[str, tuple[str, str]]:
    """Read each user's last access and location out of Redis."""
    users = {}
    for key in redis.scan_iter("user:*", count=1000):
        kept = redis.hgetall(key)
        if b"last_access" in kept:
            users[key.decode()[5:]] = (kept[b"last_access"].decode(), kept[b"location"].decode())
    return users


def in_redis(redis: Any, names: Mapping[str, str]) -> None:
    """Put names where the job looks them up."""
    for user_id, name in names.items():
        redis.hset(f"user:{user_id}", "name", name)


def processes_with(*texts: str) -> list[str]:
    """Return the command lines of all running processes that hold these texts."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if entry.name.isdigit() and all(text in line for text in texts):
                found.append(line)
    return found
