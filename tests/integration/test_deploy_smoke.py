"""A try after deploying: it finds its own events again, and says which are missing where."""

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.servers import LOOPBACK, REGION
from cli.smoke import Smoke
from clickstream.errors import Refused, Unavailable
from deploy.aws import Clients
from tests.servers import S3Server
from tests.told import Told

PATIENCE = 60.0  # seconds; a bound, not a claim


class Platform:
    """A door that hands events to the lake and the offers as the job would; `lose` are the places that get nothing."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.bucket, self.offers = f"lake-{uuid4().hex[:8]}", f"offers-{uuid4().hex[:8]}"
        self.lose: set[str] = set()
        self.status = 200
        self.keys: set[str | None] = set()
        self.events: list[dict[str, Any]] = []
        clients("s3").create_bucket(Bucket=self.bucket)
        clients("kinesis").create_stream(StreamName=self.offers, ShardCount=2)

    def take(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["additional_data"]["percent_viewed"] > 60 and "offers" not in self.lose:
            offer = json.dumps({"click_id": event["click_id"]}).encode()
            self.clients("kinesis").put_record(StreamName=self.offers, Data=offer, PartitionKey=event["user_id"])
        if "lake" not in self.lose:
            file = io.BytesIO()
            pq.write_table(pa.table({"click_id": [event["click_id"]], "name": [None]}), file)
            key = f"enriched/{time.strftime('year=%Y/month=%m/day=%d/hour=%H', time.gmtime())}/part-{uuid4().hex}"
            self.clients("s3").put_object(Bucket=self.bucket, Key=key, Body=file.getvalue())


@pytest.fixture
def platform(s3_server: S3Server) -> Platform:
    return Platform(Clients(REGION, s3_server.endpoint))


@pytest.fixture
def url(platform: Platform) -> Iterator[str]:
    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            platform.keys.add(self.headers.get("x-api-key"))
            if platform.status == 200 and self.path == "/prod/event":
                platform.take(event)
            self.send_response(platform.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Door)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{LOOPBACK}:{server.server_port}/prod/"
    server.shutdown()
    server.server_close()
    thread.join()


def smoke(platform: Platform, url: str, **options: Any) -> Smoke:
    return Smoke(platform.clients, Told(), url, platform.bucket, platform.offers, **{"patience": PATIENCE, **options})


def test_events_are_found_again_in_the_lake_and_in_the_offers(platform: Platform, url: str) -> None:
    took = smoke(platform, url, api_key="secret").run(6)

    assert set(took) == {"lake", "offers"}
    assert len(platform.events) == len({event["click_id"] for event in platform.events}) == 6
    assert platform.keys == {"secret"}


def test_what_it_posts_is_an_event_to_the_job(platform: Platform, url: str) -> None:
    from clickstream.decode import decode  # noqa: PLC0415
    from clickstream.event import Event  # noqa: PLC0415

    smoke(platform, url).run(2)

    assert all(isinstance(decode(json.dumps(event).encode()), Event) for event in platform.events)


@pytest.mark.parametrize(("lost", "words"), [("lake", "4 not yet in lake"), ("offers", "2 not yet in offers")])
def test_what_does_not_arrive_is_counted_when_the_time_is_over(
    platform: Platform, url: str, lost: str, words: str
) -> None:
    platform.lose.add(lost)

    with pytest.raises(Unavailable, match=words):
        smoke(platform, url, patience=0).run(4)


@pytest.mark.parametrize(("status", "words"), [(403, "--api-key env:NAME"), (400, "access log"), (500, "access log")])
def test_a_door_that_refuses_is_explained(platform: Platform, url: str, status: int, words: str) -> None:
    platform.status = status

    with pytest.raises(Refused, match=words):
        smoke(platform, url).run(2)


def test_a_door_that_is_not_there_is_explained(platform: Platform) -> None:
    with pytest.raises(Unavailable, match="curl -i"):
        smoke(platform, f"http://{LOOPBACK}:9/prod").run(2)
