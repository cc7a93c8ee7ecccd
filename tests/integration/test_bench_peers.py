"""What the job is compared with does the same work: its rows, and what it leaves in Redis, are the oracle's."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.servers import RedisServer
from clickstream.errors import Refused
from tests import lakes
from tests.bench.contender import LAKE, Contender
from tests.bench.equal import differences
from tests.bench.java import json_to_parquet
from tests.bench.job import Options, whole_job
from tests.bench.measure import Point
from tests.bench.python_peers import python_peer
from tests.bench.records import Records
from tests.bench.source import SOURCES

RECORDS = Records(1_000, users=100, malformed=0.1)
LOOP = python_peer("loop", "loop", 2)
MEASURED = [
    whole_job(Options()),
    LOOP,
    python_peer("bytewax", "bytewax_flow", 2),
    python_peer("polars", "polars_batch", 1),
    json_to_parquet(1),
]


@pytest.fixture(scope="module")
def records() -> Records:
    return RECORDS.make()


@pytest.mark.parametrize("measured", MEASURED, ids=lambda one: one.name)
def test_who_is_measured_has_the_right_results(measured: Contender, records: Records) -> None:
    measured.check(records)


@pytest.mark.parametrize("options", [Options(), Options(batch=100, bundle=7)], ids=["", "batches share a bundle"])
def test_the_job_has_the_right_results_with_two_hundred_hours_open_at_a_time(options: Options) -> None:
    whole_job(options).check(Records(4_000, users=100, hours=1, at_once=200, malformed=0.1).make())


@pytest.mark.parametrize("source", ["stand-in, CBOR", "stand-in, JSON"])
def test_the_job_reads_a_stream_in_the_format_that_aws_answers_in_and_in_the_one_that_kinesalite_does(
    source: str, records: Records
) -> None:
    SOURCES[source].check(records)


def test_one_wrong_value_and_one_forgotten_access_are_seen(records: Records) -> None:
    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        points = LOOP.run(records, folder, redis)
        lakes.rewrite(lakes.files(folder / LAKE, "enriched")[0], lakes.with_value("city", 0, "Nowhere"))
        with redis.client() as client:
            seen = next(user for user in client.scan_iter("user:*") if client.hexists(user, "last_access"))
            client.hdel(seen, "last_access")
        return points

    wrong = r"gets 2 things wrong:\nenriched .*: city is 'Nowhere' and should be .*\nuser \w+ is missing"
    with pytest.raises(Refused, match=wrong):
        Contender("careless", run, differences).check(records)
