"""What every publisher promises, tried on a file, on a real HTTP server and on a stream in memory."""

import hashlib
import itertools
import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from clickstream.errors import Refused, Unavailable
from generator.publish import FilePublisher, HttpPublisher, KinesisPublisher, Published, Publisher, Record
from generator.shoppers import Shoppers

UNWELCOME = b'{"user_id": "no such user"}'


# A stream in memory, as strict as Kinesis


@dataclass
class Stream:
    """Two shards, the limits of PutRecords, and trouble on order."""

    shards: dict[str, list[tuple[str, bytes]]] = field(default_factory=lambda: {"shard-0": [], "shard-1": []})
    requests: list[list[tuple[str, bytes]]] = field(default_factory=list)
    throttled: Callable[[int], bool] = lambda number: False  # of all entries ever put, by number
    errors: deque[Exception] = field(default_factory=deque)
    entries: int = 0

    def put_records(self, **request: Any) -> Any:
        records = [(entry["PartitionKey"], entry["Data"]) for entry in request["Records"]]
        self.requests.append(records)
        if self.errors:
            raise self.errors.popleft()
        if request["StreamName"] != "clicks":
            raise service_error("ResourceNotFoundException", 400)
        sizes = [len(key.encode()) + len(payload) for key, payload in records]
        if not 1 <= len(records) <= 500 or sum(sizes) > 5 << 20 or max(sizes) > 1 << 20:
            raise service_error("ValidationException", 400)
        return {"Records": [self._take(key, payload) for key, payload in records]}

    def _take(self, key: str, payload: bytes) -> dict[str, str]:
        self.entries += 1
        if self.throttled(self.entries - 1):
            return {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard"}
        shard = "shard-1" if hashlib.md5(key.encode(), usedforsecurity=False).digest()[0] & 128 else "shard-0"
        self.shards[shard].append((key, payload))
        return {"ShardId": shard, "SequenceNumber": f"{len(self.shards[shard])}"}

    def arrived(self) -> list[bytes]:
        return [payload for records in self.shards.values() for _, payload in records]


def service_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "said Kinesis"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutRecords")


# A real HTTP server


class Api:
    """Takes every POST to /event and /events but with the unwelcome one, and first gives the answers it was told to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.posted: list[tuple[str, int]] = []  # to which path, and with which answer
        self.left: deque[list[int]] = deque()  # of the next arrays, the places of what is not taken
        self.content_types: set[str | None] = set()
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.connections = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = api.answers.popleft() if api.answers else (self._status(body), {})
                left = api.left.popleft() if status == 200 and self.path == "/events" and api.left else []
                if status == 200:
                    records = msgspec.json.decode(body, type=list[msgspec.Raw]) if self.path == "/events" else [body]
                    api.bodies += [bytes(one) for place, one in enumerate(records) if place not in left]
                    api.content_types.add(self.headers["Content-Type"])
                status = 207 if left else status
                api.posted.append((self.path, status))
                answer = json.dumps({"errors": [{"index": place, "code": "busy"} for place in left]}).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def _status(self, body: bytes) -> int:
                if self.path not in ("/event", "/events"):
                    return 404
                return 400 if UNWELCOME in body else 200

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "Api":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        yield api


def http_publisher(url: str, **changed: Any) -> HttpPublisher:
    session = requests.Session()
    session.trust_env = False  # a proxy of the machine would not know this server
    return HttpPublisher(url, session=session, **changed)


# What all of them promise


@dataclass
class Door:
    """A publisher, what arrived behind it, and a record it will never take."""

    publisher: Publisher
    arrived: Callable[[], list[bytes]]
    unwelcome: Record


@pytest.fixture(params=["file", "http", "http in batches", "kinesis"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    if request.param == "file":
        path = tmp_path / "events"
        yield Door(FilePublisher(path), lambda: path.read_bytes().split(b"\n")[:-1], Record("1", b"two\nlines"))
    elif request.param.startswith("http"):
        with Api() as api:
            batch = 50 if request.param == "http in batches" else 1
            yield Door(http_publisher(api.url, batch=batch), lambda: api.bodies, Record("1", UNWELCOME))
    else:
        stream = Stream()
        yield Door(KinesisPublisher(stream, "clicks"), stream.arrived, Record("1", b"x" * (1 << 20)))


def clicks(count: int) -> list[Record]:
    return list(itertools.islice(Shoppers(1).records(), count))


def test_every_record_arrives_once_and_is_counted(door: Door) -> None:
    records = clicks(1_203)

    published = door.publisher.publish(records)

    assert published == Published(accepted=1_203)
    assert Counter(door.arrived()) == Counter(record.payload for record in records)


def test_bytes_arrive_as_they_are_broken_and_empty_ones_too(door: Door) -> None:
    payloads = [b"", b"\xff\xfe\x00", b'{"user_id": "3', " é\r".encode()]

    door.publisher.publish(Record("35", payload) for payload in payloads)

    assert door.arrived() == payloads


def test_the_records_of_one_user_arrive_in_order(door: Door) -> None:
    records = [Record(str(number % 7), f"{number % 7} {number:04}".encode()) for number in range(700)]

    door.publisher.publish(records)

    for user in "0123456":
        of_user = [payload for payload in door.arrived() if payload.startswith(user.encode())]
        assert of_user == sorted(of_user)
        assert len(of_user) == 100


def test_a_record_that_is_never_taken_is_counted_and_the_others_arrive(door: Door) -> None:
    good = clicks(20)

    published = door.publisher.publish([*good[:10], door.unwelcome, *good[10:], door.unwelcome])

    assert published.accepted == 20
    assert published.refusals == 2
    assert list(published.refused.values()) == [2]
    assert Counter(door.arrived()) == Counter(record.payload for record in good)


def test_nothing_to_publish_is_no_trouble(door: Door) -> None:
    assert door.publisher.publish([]) == Published(accepted=0)


def test_records_are_sent_while_they_are_read(door: Door) -> None:
    def breaking_off() -> Iterator[Record]:
        yield from clicks(1_500)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        door.publisher.publish(breaking_off())

    assert len(door.arrived()) >= 1_000


# What the two across a network promise as well


@dataclass
class FarDoor:
    """A publisher whose other side can be told to fail the next few requests, and who wrote down its pauses."""

    publisher: Publisher
    arrived: Callable[[], list[bytes]]
    fail: Callable[[int], None]
    misdirected: Publisher
    names: str
    pauses: list[float]


@pytest.fixture(params=["http", "kinesis"])
def far_door(request: pytest.FixtureRequest) -> Iterator[FarDoor]:
    pauses: list[float] = []
    if request.param == "http":
        with Api() as api:
            yield FarDoor(
                http_publisher(api.url, workers=1, sleep=pauses.append),
                lambda: api.bodies,
                lambda times: api.answers.extend([(503, {})] * times),
                http_publisher(f"{api.url}/wrong", sleep=pauses.append),
                api.url,
                pauses,
            )
    else:
        stream = Stream()
        yield FarDoor(
            KinesisPublisher(stream, "clicks", sleep=pauses.append),
            stream.arrived,
            lambda times: stream.errors.extend([service_error("InternalFailure", 500)] * times),
            KinesisPublisher(stream, "wrong", sleep=pauses.append),
            "clicks",
            pauses,
        )


def test_trouble_that_passes_is_waited_out_with_growing_pauses(far_door: FarDoor) -> None:
    far_door.fail(4)

    published = far_door.publisher.publish([Record("35", b"first"), Record("35", b"second")])

    assert published.accepted == 2
    assert far_door.arrived() == [b"first", b"second"]
    assert len(far_door.pauses) == 4
    assert far_door.pauses == sorted(far_door.pauses)


def test_trouble_that_lasts_is_unavailable_and_says_what_to_do(far_door: FarDoor) -> None:
    far_door.fail(1_000)

    with pytest.raises(Unavailable, match=rf"{far_door.names}.*(503|InternalFailure).* Next: "):
        far_door.publisher.publish([Record("35", b"first")])

    assert 5 <= len(far_door.pauses) <= 10


def test_a_wrong_address_is_refused_at_once_and_says_what_to_do(far_door: FarDoor) -> None:
    with pytest.raises(Refused, match=r"wrong.*(404|ResourceNotFoundException).* Next: "):
        far_door.misdirected.publish([Record("35", b"first")])

    assert far_door.pauses == []


# Kinesis alone


def test_only_entries_that_failed_are_put_again() -> None:
    stream = Stream(throttled=lambda number: number < 10 and number % 3 == 1)
    records = [Record(str(number), b"%d" % number) for number in range(10)]

    published = KinesisPublisher(stream, "clicks", sleep=lambda _: None).publish(records)

    assert published.accepted == 10
    assert stream.requests == [records, [records[1], records[4], records[7]]]
    assert Counter(stream.arrived()) == Counter(record.payload for record in records)


def test_a_stream_that_stays_full_is_unavailable_naming_the_code_and_what_was_accepted() -> None:
    stream = Stream(throttled=lambda number: number >= 501)

    with pytest.raises(
        Unavailable, match=r"clicks did not take 99 .*ProvisionedThroughputExceeded.* 501 were accepted"
    ):
        KinesisPublisher(stream, "clicks", sleep=lambda _: None).publish(clicks(600))

    assert len(stream.arrived()) == 501


@pytest.mark.parametrize(
    "error",
    [
        service_error("ProvisionedThroughputExceededException", 400),
        service_error("ThrottlingException", 400),
        service_error("ServiceUnavailable", 503),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
        ConnectionResetError("by peer"),
    ],
)
def test_a_whole_request_that_fails_in_passing_is_put_again(error: Exception) -> None:
    stream = Stream(errors=deque([error]))

    published = KinesisPublisher(stream, "clicks", sleep=lambda _: None).publish(clicks(10))

    assert published.accepted == 10
    assert len(stream.requests) == 2


@pytest.mark.parametrize("error", [service_error("AccessDeniedException", 400), NoCredentialsError()])
def test_a_missing_permission_is_refused_at_once(error: Exception) -> None:
    stream = Stream(errors=deque([error]))

    with pytest.raises(Refused, match=r"clicks refused PutRecords .* Next: "):
        KinesisPublisher(stream, "clicks").publish(clicks(10))

    assert len(stream.requests) == 1


def test_a_mistake_in_the_client_is_not_mistaken_for_trouble() -> None:
    with pytest.raises(ZeroDivisionError):
        KinesisPublisher(Stream(errors=deque([ZeroDivisionError()])), "clicks").publish(clicks(1))


def test_requests_are_as_full_as_the_limits_allow() -> None:
    many, large = Stream(), Stream()

    KinesisPublisher(many, "clicks", linger=60).publish(clicks(1_200))
    KinesisPublisher(large, "clicks", linger=60).publish([Record("35", b"x" * ((1 << 20) - 2))] * 11)

    assert [len(request) for request in many.requests] == [500, 500, 200]
    assert [len(request) for request in large.requests] == [5, 5, 1]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("35", b"x" * ((1 << 20) - 1)), "is larger than 1,048,576 bytes with its partition key"),
        (Record("", b"{}"), "has a partition key of 0 characters"),
        (Record("x" * 257, b"{}"), "has a partition key of 257 characters"),
    ],
)
def test_a_record_over_a_limit_is_refused_with_the_reason(record: Record, reason: str) -> None:
    stream = Stream()

    published = KinesisPublisher(stream, "clicks").publish([record, *clicks(2)])

    assert published.accepted == len(stream.arrived()) == 2
    assert [why.startswith(reason) for why in published.refused] == [True]


def test_records_of_exactly_the_limits_are_accepted() -> None:
    largest = Record("é", b"x" * ((1 << 20) - 2))
    longest = Record("k" * 256, b"{}")

    assert KinesisPublisher(Stream(), "clicks").publish([largest, longest]) == Published(accepted=2)


def test_whoever_counts_hears_of_every_accepted_record_once() -> None:
    stream = Stream(throttled=lambda number: number % 4 == 0)
    heard: list[tuple[Record, str, str]] = []
    records = clicks(1_000)

    KinesisPublisher(stream, "clicks", lambda *one: heard.append(one), sleep=lambda _: None).publish(records)

    assert Counter(record for record, _, _ in heard) == Counter(records)
    for record, shard, sequence_number in heard:
        assert stream.shards[shard][int(sequence_number) - 1] == record


# HTTP alone


def test_connections_stay_open(api: Api) -> None:
    http_publisher(api.url, workers=3).publish(clicks(200))

    assert api.connections <= 3
    assert api.content_types == {"application/json"}


def test_a_slash_at_the_end_of_the_address_changes_nothing(api: Api) -> None:
    assert http_publisher(f"{api.url}/").publish(clicks(3)).accepted == 3


@pytest.mark.parametrize(
    ("retry_after", "shortest", "longest"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("86400", 60, 60),
        ("-3", 0, 0),
        ("soon", 0.05, 0.1),
        ("nan", 0.05, 0.1),
        (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 60, 60),
        (format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True), 0, 0),
    ],
)
def test_the_pause_is_what_retry_after_asks_for_up_to_a_minute(
    api: Api, retry_after: str, shortest: float, longest: float
) -> None:
    api.answers.append((429, {"Retry-After": retry_after}))
    pauses: list[float] = []

    published = http_publisher(api.url, sleep=pauses.append).publish(clicks(1))

    assert published.accepted == 1
    assert len(pauses) == 1
    assert shortest <= pauses[0] <= longest


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_status_about_the_record_counts_it_as_refused(api: Api, status: int) -> None:
    api.answers.append((status, {}))

    assert http_publisher(api.url).publish(clicks(2)) == Published(1, {f"was answered {status}": 1})


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_a_status_about_the_address_stops_everything(api: Api, status: int) -> None:
    api.answers.append((status, {"Location": "/elsewhere"}))

    with pytest.raises(Refused, match=str(status)):
        http_publisher(api.url).publish(clicks(1))


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(Refused, match=r"localhost:80.* Next: "):
        http_publisher("localhost:80").publish(clicks(1))


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        pauses: list[float] = []

        with pytest.raises(Unavailable, match=f"{url}/event failed 3 times"):
            http_publisher(url, attempts=3, sleep=pauses.append, rng=Random(5)).publish(clicks(1))

    assert len(pauses) == 2


# HTTP in batches


def test_a_batch_is_one_request(api: Api) -> None:
    published = http_publisher(api.url, workers=1, batch=100).publish(clicks(250))

    assert published == Published(250)
    assert api.posted == [("/events", 200)] * 3


def test_what_is_not_json_by_itself_goes_alone_and_cannot_smuggle_a_record_in(api: Api) -> None:
    payloads = [
        b"{}",
        b"{},{}",
        b"1 ",
        b"",
        b"]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16-le"),
        b'"a"',
        b"null",
    ]

    published = http_publisher(api.url, workers=1, batch=100).publish(Record("35", one) for one in payloads)

    assert published.accepted == len(payloads)
    assert [one.strip() for one in api.bodies] == [one.strip() for one in payloads]
    assert Counter(path for path, _ in api.posted) == {"/event": 6, "/events": 3}


def test_a_batch_that_is_refused_is_halved_until_the_record_at_fault_is_alone(api: Api) -> None:
    records = clicks(16)
    records.insert(5, Record("35", UNWELCOME))

    published = http_publisher(api.url, workers=1, batch=100).publish(records)

    assert published == Published(16, {"was answered 400": 1})
    assert Counter(api.bodies) == Counter(one.payload for one in records if one.payload != UNWELCOME)
    assert len(api.posted) <= 11


def test_only_what_was_not_taken_of_a_batch_is_sent_again(api: Api) -> None:
    api.left.extend([[1, 3, 4], [0, 2]])
    records = clicks(5)
    pauses: list[float] = []

    published = http_publisher(api.url, workers=1, batch=5, sleep=pauses.append).publish(records)

    assert published == Published(5)
    assert api.bodies == [records[place].payload for place in (0, 2, 3, 1, 4)]
    assert api.posted == [("/events", 207), ("/events", 207), ("/events", 200)]
    assert len(pauses) == 2


def test_a_door_that_never_takes_all_is_unavailable(api: Api) -> None:
    api.left.extend([[0]] * 3)

    with pytest.raises(Unavailable, match=r"/events took only a part of what it was sent, 3 times. Next: "):
        http_publisher(api.url, batch=5, attempts=3, sleep=lambda _: None).publish(clicks(1))


@pytest.mark.parametrize("batch", [1, 7])
def test_whoever_counts_hears_of_what_was_taken_and_not_of_the_rest(api: Api, batch: int) -> None:
    heard: list[int] = []
    records = [*clicks(20), Record("35", UNWELCOME)]

    http_publisher(api.url, batch=batch, on_accepted=heard.append).publish(records)

    assert sum(heard) == 20


# Files alone


def test_a_newline_is_given_as_the_reason(tmp_path: Path) -> None:
    published = FilePublisher(tmp_path / "events").publish([Record("35", b"two\nlines")])

    assert published == Published(0, {"holds a newline, which a file of lines cannot keep": 1})


def test_publishing_again_replaces_the_file(tmp_path: Path) -> None:
    publisher = FilePublisher(tmp_path / "events")

    publisher.publish(clicks(10))
    publisher.publish(clicks(3))

    assert len((tmp_path / "events").read_bytes().splitlines()) == 3
