"""The front door, deployed from the template that goes to AWS: what it lets in, what it refuses, and in which words."""

import itertools
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import requests

from cli.front import loopback_session, open_front
from cli.servers import Kinesalite, Localemu
from generator.http import HttpPublisher
from generator.records import Record
from tests.events import event, payload
from tests.integration.test_cli import clickstream, count

STREAM = "front"
JSON = {"Content-Type": "application/json"}


class Kinesis:
    """A Kinesis that hands everything on to kinesalite, but for users whose name says what is to go wrong.

    `full-…` finds the shard full as often as is said; `denied-…` and `down-…` spoil the whole request.
    """

    def __init__(self, behind: Kinesalite) -> None:
        self.full = 0  # how many more entries find the shard full
        kinesis, session = self, loopback_session()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                entries = request.get("Records", [request])
                trouble = {entry["PartitionKey"].partition("-")[0] for entry in entries}
                if "down" in trouble:
                    self.answer(500, {"__type": "InternalFailure"})
                elif "denied" in trouble:
                    self.answer(400, {"__type": "AccessDeniedException", "message": "not authorized: PutRecord"})
                elif "full" not in trouble:
                    passed = {name: self.headers[name] for name in ("Content-Type", "X-Amz-Target", "Authorization")}
                    passed["X-Amz-Date"] = self.headers["X-Amz-Date"]
                    answer = session.post(behind.endpoint, data=body, headers=passed, timeout=30)
                    self.answer(answer.status_code, answer.json())
                elif "Records" not in request:
                    self.answer(400, {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"})
                else:
                    self.answer(200, self.put_some(request))

            def put_some(self, request: Any) -> Any:
                answers = []
                with closing(behind.client()) as client:
                    for entry in request["Records"]:
                        if entry["PartitionKey"].startswith("full-") and kinesis.full > 0:
                            kinesis.full -= 1
                            code = "ProvisionedThroughputExceededException"
                            answers.append({"ErrorCode": code, "ErrorMessage": "Rate exceeded for shard 1 of 123"})
                        else:
                            data, key = entry["Data"], entry["PartitionKey"]
                            put = client.put_record(StreamName=STREAM, PartitionKey=key, Data=b64decode(data))
                            answers.append({name: put[name] for name in ("ShardId", "SequenceNumber")})
                return {"FailedRecordCount": sum("ErrorCode" in one for one in answers), "Records": answers}

            def answer(self, status: int, body: Any) -> None:
                written = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "Kinesis":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Put(NamedTuple):
    """A record as it is in the stream."""

    key: str
    shard: str
    data: bytes


class Door(NamedTuple):
    """A front door, the stream behind it, and what may go wrong with that."""

    url: str
    session: requests.Session
    kinesalite: Kinesalite
    kinesis: Kinesis
    localemu: Localemu

    def post(self, path: str, body: bytes | str, headers: Mapping[str, str] = JSON) -> requests.Response:
        return self.session.post(f"{self.url}/{path}", data=body, headers=headers, timeout=120)

    def put(self, containing: str) -> list[Put]:
        """Read the records that hold a text, in the order of each shard."""
        found = []
        with closing(self.kinesalite.client()) as client:
            for shard in client.list_shards(StreamName=STREAM)["Shards"]:
                iterator = client.get_shard_iterator(
                    StreamName=STREAM, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
                )["ShardIterator"]
                while True:
                    answer = client.get_records(ShardIterator=iterator, Limit=1000)
                    iterator = answer["NextShardIterator"]
                    found += [Put(one["PartitionKey"], shard["ShardId"], one["Data"]) for one in answer["Records"]]
                    if not answer["Records"]:
                        break
        return [one for one in found if containing.encode() in one.data]


@pytest.fixture(scope="module")
def door(kinesalite: Kinesalite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    kinesalite.create_stream(STREAM, shards=2)
    with (
        Kinesis(kinesalite) as kinesis,
        Localemu(tmp_path_factory.mktemp("localemu"), kinesis.endpoint) as localemu,
        loopback_session() as session,
    ):
        yield Door(open_front(localemu, STREAM), session, kinesalite, kinesis, localemu)


@pytest.fixture
def click() -> str:
    """A click_id of this test's own, by which it finds its records."""
    return uuid4().hex


# What is let in


def test_an_event_is_in_the_stream_byte_for_byte_under_its_user(door: Door, click: str) -> None:
    body = payload(click_id=click, user_id="35", name="Zoë 😀").decode().replace("39.7", "39.70").replace(", ", " ,\n")
    assert "\\u" in body
    body = body.replace("Zo\\u00eb \\ud83d\\ude00", "Zoë 😀")

    answer = door.post("event", body.encode())

    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "failed": 0, "errors": []})
    assert [(one.key, one.data) for one in door.put(click)] == [("35", body.encode())]


def test_events_posted_together_become_records_of_their_own_each_under_its_user(door: Door, click: str) -> None:
    events = [event(click_id=f"{click}-{n}", user_id=str(n % 3), name="Zoë 😀 'x' \"y\" \\") for n in range(12)]

    answer = door.post("events", json.dumps(events))

    assert (answer.status_code, answer.json()) == (200, {"accepted": 12, "failed": 0, "errors": []})
    records = door.put(click)
    arrived = sorted((json.loads(one.data) for one in records), key=lambda one: int(one["click_id"].split("-")[1]))
    assert arrived == events
    assert all(json.loads(one.data)["user_id"] == one.key for one in records)
    for _, of_user in itertools.groupby(sorted(records, key=lambda one: one.key), lambda one: one.key):
        same = list(of_user)
        assert len({one.shard for one in same}) == 1
        assert same == sorted(same, key=lambda one: int(json.loads(one.data)["click_id"].split("-")[1]))


@pytest.mark.parametrize(
    "user", ["a'b", 'say "hi"', "back\\slash", "$input.body", "#end ${x}", "ü" * 128, "😀", "a\tb"]
)
def test_whatever_a_user_is_called_is_the_partition_key(door: Door, click: str, user: str) -> None:
    one = door.post("event", payload(click_id=click, user_id=user))
    many = door.post("events", json.dumps([event(click_id=click, user_id=user)] * 2))

    assert (one.status_code, many.status_code) == (200, 200)
    assert [(one.key, json.loads(one.data)["user_id"]) for one in door.put(click)] == [(user, user)] * 3


def test_what_an_event_says_besides_is_no_velocity(door: Door, click: str) -> None:
    more = {"more": "#set($x = 1) $input.path('$') ${util} #end", "deep": json.loads("[" * 100 + "]" * 100)}

    door.post("event", payload(click_id=click, **more))
    door.post("events", json.dumps([event(click_id=click, **more)]))

    assert [json.loads(one.data) for one in door.put(click)] == [event(click_id=click, **more)] * 2


def test_numbers_keep_their_value_in_a_batch(door: Door, click: str) -> None:
    numbers = {"product_id": 2**63 - 1, "price": 1e300, "percent_viewed": 0.1, "time_on_data": 1e-7}

    door.post("events", json.dumps([event(click_id=click, **numbers)]))

    [record] = door.put(click)
    assert json.loads(record.data)["additional_data"] == numbers


def test_what_draft_4_cannot_say_is_let_in_and_is_the_jobs_to_reject(door: Door, click: str) -> None:
    assert door.post("event", payload(click_id=click, user_ip="256.1.1.1")).status_code == 200
    assert door.post("event", payload(click_id=click, timestamp="yesterday")).status_code == 200

    assert len(door.put(click)) == 2


def test_500_events_go_in_at_once_and_501_do_not(door: Door, click: str) -> None:
    events = [event(click_id=click, user_id=str(n)) for n in range(501)]

    refused = door.post("events", json.dumps(events))
    taken = door.post("events", json.dumps(events[:500]))

    assert refused.status_code == 400
    assert "array is too long" in refused.json()["errors"]
    assert (taken.status_code, taken.json()["accepted"]) == (200, 500)
    assert len(door.put(click)) == 500


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": ..., "user_ip": ...}, '[object has missing required properties (["user_id","user_ip"])]'),
        ({"price": ...}, '[object has missing required properties (["price"])]'),
        ({"user_id": 35}, '(integer) does not match any allowed primitive type (allowed: ["string"])'),
        ({"price": "1.5"}, '(string) does not match any allowed primitive type (allowed: ["integer","number"])'),
        ({"price": True}, "instance type (boolean)"),
        ({"event_name": "Stare"}, 'instance value ("Stare") not found in enum (possible values: ["AddToCart",'),
        ({"percent_viewed": 101}, "greater than the required maximum (maximum: 100, found: 101)"),
        ({"product_id": 2**63}, "greater than the required maximum"),
        ({"user_id": ""}, 'string "" is too short'),
        ({"pixel_id": "x" * 129}, "is too long (length: 129, maximum allowed: 128)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_event_is_answered_400_with_what_is_wrong(
    door: Door, click: str, changes: dict[str, Any], words: str
) -> None:
    answers = [
        door.post("event", payload(click_id=click, **changes)),
        door.post("events", json.dumps([event(click_id=click), event(click_id=click, **changes)])),
    ]

    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["message"] == "Invalid request body"
        assert words in answer.json()["errors"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert door.put(click) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b"35", b"\xff\xfe", b"{} {}"),
        b"\xef\xbb\xbf" + payload(),
        payload().decode().encode("utf-16"),
        payload(price=float("nan")),
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:9]),
)
@pytest.mark.parametrize("path", ["event", "events"])
def test_what_is_no_json_of_the_right_kind_is_answered_400(door: Door, path: str, body: bytes) -> None:
    assert door.post(path, body).status_code == 400


def test_what_does_not_say_it_is_json_is_answered_415(door: Door, click: str) -> None:
    for path, body in (("event", payload(click_id=click)), ("events", b"[" + payload(click_id=click) + b"]")):
        assert door.post(path, body, {"Content-Type": "text/plain"}).status_code == 415

    assert door.put(click) == []


def test_there_is_no_other_way_in(door: Door) -> None:
    assert door.post("", payload()).status_code == 403
    assert door.post("event/35", payload()).status_code == 403
    assert door.session.get(f"{door.url}/event", timeout=60).status_code == 403


def test_more_than_a_record_may_be_is_answered_413(door: Door, click: str) -> None:
    answer = door.post("event", payload(click_id=click, more="x" * (1 << 20)))

    assert (answer.status_code, answer.json()) == (413, {"message": "More than the stream takes at once"})
    assert door.put(click) == []


@pytest.mark.parametrize("path", ["event", "events"])
def test_a_page_of_any_origin_may_post(door: Door, path: str) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}

    answer = door.session.options(f"{door.url}/{path}", headers=asked, timeout=60)

    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]


def test_with_api_keys_only_a_known_key_gets_in(door: Door, click: str) -> None:
    url = open_front(door.localemu, STREAM, "keyed", ApiKeys="true")
    with closing(door.localemu.client("apigateway")) as client:
        [key] = client.get_api_keys(includeValues=True)["items"]

    def status(**headers: str) -> int:
        body = payload(click_id=click)
        return door.session.post(f"{url}/event", data=body, headers={**JSON, **headers}, timeout=60).status_code

    assert status() == 403
    assert status(**{"X-Api-Key": "guessed"}) == 403
    assert status(**{"X-Api-Key": key["value"]}) == 200
    assert len(door.put(click)) == 1


# Trouble behind the door


def test_records_that_find_no_room_are_named_by_their_place(door: Door, click: str) -> None:
    door.kinesis.full = 2
    users = ["1", "full-a", "2", "full-b", "full-c"]

    answer = door.post("events", json.dumps([event(click_id=click, user_id=user) for user in users]))

    code = "ProvisionedThroughputExceededException"
    errors = [{"index": 1, "code": code}, {"index": 3, "code": code}]
    assert (answer.status_code, answer.json()) == (207, {"accepted": 3, "failed": 2, "errors": errors})
    assert {one.key for one in door.put(click)} == {"1", "2", "full-c"}


def test_where_no_record_finds_room_the_answer_is_503(door: Door, click: str) -> None:
    door.kinesis.full = 2

    answer = door.post("events", json.dumps([event(click_id=click, user_id="full-a")] * 2))

    assert (answer.status_code, answer.json()["accepted"], answer.json()["failed"]) == (503, 0, 2)
    assert [error["index"] for error in answer.json()["errors"]] == [0, 1]


@pytest.mark.parametrize(
    ("user", "status", "message"),
    [
        ("full-a", 503, "The stream is busy, try again"),
        ("down-a", 503, "The stream is not available, try again"),
        ("denied-a", 502, "The stream does not take what comes from here"),
    ],
)
def test_trouble_with_the_stream_is_no_fault_of_the_clients(door: Door, user: str, status: int, message: str) -> None:
    answer = door.post("event", payload(user_id=user))

    assert (answer.status_code, answer.json()) == (status, {"message": message})


def test_the_generator_sends_what_found_no_room_again_and_nothing_else(door: Door, click: str) -> None:
    door.kinesis.full = 3
    records = [Record("k", payload(click_id=click, user_id="full-x" if n % 2 else str(n))) for n in range(10)]
    publisher = HttpPublisher(door.url, session=door.session, batch=5, timeout=120, sleep=lambda _: None)

    published = publisher.publish([*records, Record("k", payload(click_id=click, price=-1)), Record("k", b"{")])

    assert (published.accepted, published.refused) == (10, {"was answered 400": 2})
    assert sorted(one.key for one in door.put(click)) == sorted(json.loads(one.payload)["user_id"] for one in records)


# The whole way


def test_a_run_through_the_front_door_enriches_what_it_lets_in_and_the_books_balance(tmp_path: Path) -> None:
    lines = [payload(user_id=str(n % 7), click_id=f"c{n}", percent_viewed=n % 100) for n in range(120)]
    lines += [b"{", payload(price="1"), payload(user_id=...), payload(user_ip="256.1.1.1"), payload(timestamp="now")]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(lines) + b"\n")

    done = clickstream(
        *("run", "--front", "api"),
        *("--input", tmp_path / "events.ndjson"),
        *("--lake", tmp_path / "lake"),
        *("--report", tmp_path / "report.json"),
        *("--folder", tmp_path / "data"),
    )

    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["published"], report["refused_by_front"], report["refused_by_stream"]) == (122, 3, 0)
    assert report["published"] == report["enriched"] + report["rejected"] + report["suppressed"] == report["raw"]
    assert report["rejected_reasons"] == {"bad_ip": 1, "bad_timestamp": 1}
    assert count(tmp_path / "lake", "enriched", "user_id = '3' AND country = 'CN'") == 17
    assert "3 records are not among them, the front door refused them: was answered 400" in done.stderr
