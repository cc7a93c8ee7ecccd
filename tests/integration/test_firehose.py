"""The archive, deployed from the templates that go to AWS: what is put into a stream is in the bucket, by the hour."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from tests.events import payload
from tests.integration.test_deploy import REAL, World
from tests.localemu_firehose import evaluated
from tests.servers import FirehoseServer

PARTS = ("streams", "archive")
PATIENCE = 60.0  # seconds; a bound, not a claim
HOUR = "year=%Y/month=%m/day=%d/hour=%H/"


class Archive(NamedTuple):
    """The streams, what Firehose makes of them, and the names of both."""

    kinesis: Any
    s3: Any
    outputs: Mapping[str, str]

    def put(self, stream: str, *records: bytes) -> None:
        """Put records into a stream in one request, of which each is accepted."""
        entries = [{"Data": record, "PartitionKey": str(number)} for number, record in enumerate(records)]
        assert self.kinesis.put_records(StreamName=self.outputs[stream], Records=entries)["FailedRecordCount"] == 0

    def arrivals(self, stream: str) -> dict[bytes, datetime]:
        """Read a stream from its beginning: its records, in order, and when Kinesis says each arrived."""
        [shard] = self.kinesis.list_shards(StreamName=self.outputs[stream])["Shards"]
        place = {"StreamName": self.outputs[stream], "ShardId": shard["ShardId"]}
        at = self.kinesis.get_shard_iterator(**place, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        found: dict[bytes, datetime] = {}
        while records := (answer := self.kinesis.get_records(ShardIterator=at))["Records"]:
            found |= {record["Data"]: record["ApproximateArrivalTimestamp"] for record in records}
            at = answer["NextShardIterator"]
        return found

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Read everything in a bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.outputs[bucket])
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {key: self.s3.get_object(Bucket=self.outputs[bucket], Key=key)["Body"].read() for key in keys}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with FirehoseServer(tmp_path_factory.mktemp("firehose")) as server, ExitStack() as open_until_then:
        world = World(server, "hose", tmp_path_factory.mktemp("deploy"))
        world.up({part: REAL[part] for part in PARTS})
        stacks = world.deployment({}).stacks.there()
        outputs = {name: value for part in PARTS for name, value in stacks[part].outputs.items()}
        kinesis, s3 = (open_until_then.enter_context(closing(server.client(name))) for name in ("kinesis", "s3"))
        yield Archive(kinesis, s3, outputs)


@pytest.mark.parametrize(
    ("stream", "bucket", "folder"),
    [("ClicksStreamName", "RawBucket", ""), ("OffersStreamName", "LakeBucket", "offers/")],
)
def test_a_record_is_in_the_bucket_once_and_untouched_under_the_utc_hour_of_its_arrival(
    archive: Archive, stream: str, bucket: str, folder: str
) -> None:
    began = datetime.now(UTC)
    deadline = time.monotonic() + PATIENCE
    while not archive.objects(bucket):  # Firehose reads what comes after it has begun, which it does not tell
        assert time.monotonic() < deadline, f"nothing came into {bucket}"
        archive.put(stream, payload(click_id=uuid4().hex))
        time.sleep(0.2)
    events = [payload(click_id=uuid4().hex, name=f"Zoë {number}") for number in range(300)]
    for start in range(0, len(events), 100):
        archive.put(stream, *events[start : start + 100])
    while events[-1] not in b"".join((objects := archive.objects(bucket)).values()):
        assert time.monotonic() < deadline, f"of {len(events)} events the last did not come into {bucket}"
        time.sleep(0.2)

    arrivals = archive.arrivals(stream)
    by_click = {json.loads(record)["click_id"]: record for record in arrivals}
    contents = {key: [by_click[click] for click in clicks(body)] for key, body in objects.items()}
    read = [record for records in contents.values() for record in records]
    first = min(list(arrivals).index(record) for record in read)
    assert all(began - timedelta(seconds=1) <= arrived <= datetime.now(UTC) for arrived in arrivals.values())
    assert set(events) <= set(read)
    assert sorted(read) == sorted(list(arrivals)[first:])
    for key, records in contents.items():
        arrived = min(arrivals[record] for record in records).astimezone(UTC)
        assert objects[key] == b"".join(records)
        assert key.startswith(arrived.strftime(folder + HOUR)), "a failed record would be under errors"
        assert key.count("/") == (folder + HOUR).count("/")


def test_our_evaluation_changes_with_the_hour_and_refuses_what_it_does_not_know() -> None:
    prefix = "year=!{timestamp:yyyy}/month=!{timestamp:MM}/day=!{timestamp:dd}/hour=!{timestamp:HH}/"
    last = datetime(2026, 12, 31, 23, 59, 59, 999_000, UTC)

    assert evaluated(prefix, last) == "year=2026/month=12/day=31/hour=23/"
    assert evaluated(prefix, last + timedelta(milliseconds=1)) == "year=2027/month=01/day=01/hour=00/"
    assert evaluated("raw/", last) == "raw/2026/12/31/23/"
    for wrong in ("!{timestamp:YYYY}/", "!{timestamp:hh}/", "!{firehose:random-string}/", "!{timestamp:yyyy'T'}/"):
        with pytest.raises(ValueError, match="nobody here evaluates"):
            evaluated(wrong, last)


def clicks(body: bytes) -> Iterator[str]:
    """Yield the click_id of each of the JSON objects that follow each other without anything between."""
    decoder, rest = json.JSONDecoder(), body.decode()
    while rest:
        record, end = decoder.raw_decode(rest)
        yield record["click_id"]
        rest = rest[end:]
