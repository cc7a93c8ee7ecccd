"""The whole job against real servers: everything published comes out as the oracle says."""

import ipaddress
import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import maxminddb
import pyarrow.parquet as pq
import pytest

from cli.servers import Kinesalite, RedisServer
from clickstream.settings import Geo, Lake, Offers, Redis, Settings, Source
from generator.malformed import mixed
from generator.shoppers import Shoppers
from tests import oracle
from tests.jobs import (
    GEO,
    data_files,
    file_system,
    in_redis,
    last_accesses,
    publish,
    run_until_committed,
    stream_records,
    written,
)
from tests.servers import S3Server

EVENTS = 20_000


@pytest.fixture
def s3_lake(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    s3_server.client().create_bucket(Bucket="lake")
    return Lake(root="s3://lake/clicks", endpoint=s3_server.endpoint)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    return Lake(root=(tmp_path / "lake").as_uri())


@pytest.mark.parametrize("where", ["folder_lake", "s3_lake"])
def test_every_event_comes_out_exactly_as_the_oracle_says(
    where: str,
    kinesalite: Kinesalite,
    redis_server: RedisServer,
    redis: Any,
    stream: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=request.getfixturevalue(where),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(mmdb=str(GEO)),
    )
    shoppers = Shoppers(7)
    names = {customer.customer_id: customer.name for customer in shoppers.customers()}
    in_redis(redis, names)
    records = itertools.islice(mixed(shoppers.records(), 0.01, random.Random(7)), EVENTS)
    assert publish(kinesalite, stream, records) == EVENTS

    run_until_committed(settings, tmp_path / "job", EVENTS)

    accepted = stream_records(kinesalite, stream)
    assert len(accepted) == EVENTS
    with maxminddb.open_database(GEO) as places:
        expected = oracle.expected(accepted, places.get, names)
    assert len(expected.rejected) == EVENTS // 100
    out = written(settings, kinesalite)
    problems = oracle.differences(expected, out.enriched, out.rejected, out.offers, last_accesses(redis))
    assert not problems, "\n".join(problems[:20])
    assert Counter(map(_bytes_and_origin, out.raw)) == Counter((r.payload, r.arrival, *_id(r)) for r in accepted)
    _is_snappy_with_utc_timestamps(settings)


def _id(record: oracle.Arrived) -> tuple[str, str]:
    return record.shard_id, record.sequence_number


def _bytes_and_origin(row: dict[str, Any]) -> tuple[Any, ...]:
    arrival = row["arrival_timestamp"]
    assert (row["year"], row["month"], row["day"], row["hour"]) == tuple(arrival.strftime("%Y %m %d %H").split())
    return row["payload"], arrival, row["shard_id"], row["sequence_number"]


def _is_snappy_with_utc_timestamps(settings: Settings) -> None:
    system, _ = file_system(settings)
    for table in ("enriched", "rejected", "raw"):
        for path in data_files(settings, table):
            with system.open_input_file(path) as file:
                metadata = pq.ParquetFile(file).metadata
                for index in range(metadata.num_columns):
                    assert metadata.row_group(0).column(index).compression == "SNAPPY"
                    column = metadata.schema.column(index)
                    if column.name.endswith("timestamp"):
                        assert column.physical_type == "INT64"
                        kind = json.loads(column.logical_type.to_json())
                        assert (kind["isAdjustedToUTC"], kind["timeUnit"]) == (False, "microseconds")
                    if column.name == "payload":
                        assert (column.physical_type, column.logical_type.type) == ("BYTE_ARRAY", "NONE")
    if not settings.lake.root.startswith("s3://"):
        files = data_files(settings, "enriched")
        query = "SELECT typeof(arrival_timestamp), max(arrival_timestamp) FROM read_parquet($1) GROUP BY 1"
        ((kind, last),) = duckdb.execute(query, [files]).fetchall()
        assert kind == "TIMESTAMP"  # its digits are UTC in whatever zone a session is
        assert abs(datetime.now(UTC).replace(tzinfo=None) - last) < timedelta(minutes=30)


class CountingIpInfo(BaseHTTPRequestHandler):
    """An ipinfo.io that counts how often it is asked about each address."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()

    def do_POST(self) -> None:
        addresses = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.asked.update(addresses)
        body = json.dumps({a: {"ip": a, "city": "Columbus", "region": "Ohio", "country": "US"} for a in addresses})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ipinfo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CountingIpInfo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    CountingIpInfo.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_each_address_is_asked_of_a_metered_provider_at_most_once_by_two_workers(
    ipinfo: str,
    kinesalite: Kinesalite,
    redis_server: RedisServer,
    redis: Any,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IPINFO_TOKEN", "a-token")
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=Lake(root=(tmp_path / "lake").as_uri(), raw=False),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(provider="ipinfo", ipinfo_url=ipinfo),
    )
    records = list(itertools.islice(Shoppers(8).records(), 3000))
    # The same shoppers once more under other names: their addresses come in by both shards.
    records += [one._replace(partition_key=one.partition_key[::-1] + "x") for one in records]
    publish(kinesalite, stream, records)

    run_until_committed(settings, tmp_path / "job", len(records))

    out = written(settings, kinesalite)
    seen = {row["user_ip"]: ipaddress.ip_address(row["user_ip"]) for row in out.enriched}
    public = {text: str(address) for text, address in seen.items() if address.is_global}
    assert set(CountingIpInfo.asked.values()) == {1}
    assert set(public.values()) == set(CountingIpInfo.asked)
    assert {row["geo_status"] for row in out.enriched if row["user_ip"] in public} <= {"found", "pending"}
    assert {row["city"] for row in out.enriched if row["geo_status"] == "found"} == {"Columbus"}
    assert not data_files(settings, "raw")
