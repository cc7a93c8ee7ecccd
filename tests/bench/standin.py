"""A Kinesis that only reads out what it was given: answers are made before they are asked for, and then cost nothing.

It speaks what AWS' clients for Java speak, JSON or CBOR, whichever a request comes in, on a loopback port. It knows one
stream, and neither splits nor throttles. What is put into it is handed to its maker, and no part of the stream.
"""

import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, Final, NamedTuple

CBOR: Final = "application/x-amz-cbor-1.1"
MOST: Final = 10_000  # records in an answer, as AWS
_TOKEN: Final = re.compile(rb"shardId-(\d{12}):(\d{6})")
_SHARD: Final = re.compile(rb"shardId-(\d{12})")


class Held(NamedTuple):
    """A record of a shard."""

    payload: bytes
    key: str
    sequence_number: str
    arrival: int  # milliseconds since 1970


Write = Callable[[Mapping[str, Any]], bytes]


@contextmanager
def serving(
    shards: Sequence[Iterable[Held]] = (), *, cbor: bool = False, put: Callable[[bytes], object] = len
) -> Iterator[str]:
    """Serve the shards' records in the one way or the other, and give the endpoint; `put` is given each PutRecords."""
    write = _as_cbor if cbor else _as_json
    pages = {number: list(_pages(number, records, write)) for number, records in enumerate(shards)}
    of_stream = [_listed(number) for number in pages]
    listed = write({"Shards": of_stream})
    one = {"ShardId": "shardId-000000000000", "SequenceNumber": "1"}
    accepted = cache(lambda count: write({"FailedRecordCount": 0, "Records": [one] * count}))
    named = {"StreamName": "clicks", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"}
    described = {
        **named,
        "EnhancedMonitoring": [],
        "StreamStatus": "ACTIVE",
        "Shards": of_stream,
        "HasMoreShards": False,
        "RetentionPeriodHours": 24,
    }
    description = write({"StreamDescription": described})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            if (self.headers["Content-Type"] == CBOR) is not cbor:
                self.send_error(400, f"it was made for {'CBOR' if cbor else 'JSON'}")
                return
            body = self._answer(self.headers["X-Amz-Target"].rpartition(".")[2], asked)
            self.send_response(200)
            self.send_header("Content-Type", self.headers["Content-Type"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, operation: str, asked: bytes) -> bytes:
            if operation == "ListShards":
                return listed
            if operation == "DescribeStream":
                return description
            if operation == "GetShardIterator":
                found = _SHARD.search(asked)
                assert found is not None
                return write({"ShardIterator": _token(int(found[1]), 0)})
            if operation == "GetRecords":
                found = _TOKEN.search(asked)
                assert found is not None
                return pages[int(found[1])][int(found[2])]
            if operation == "PutRecords":
                put(asked)
                return accepted(asked.count(b"PartitionKey"))
            raise NotImplementedError(operation)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _pages(shard: int, records: Iterable[Held], write: Write) -> Iterator[bytes]:
    """Make the answers to GetRecords: full ones, and a last one that is empty and leads to itself."""
    left = iter(records)
    for number in range(1_000_000):
        page = list(islice(left, MOST))
        following = number + 1 if page else number
        behind = 60_000 if page else 0
        found = [
            {
                "SequenceNumber": record.sequence_number,
                "ApproximateArrivalTimestamp": record.arrival if write is _as_cbor else record.arrival / 1000,
                "Data": record.payload if write is _as_cbor else b64encode(record.payload).decode(),
                "PartitionKey": record.key,
            }
            for record in page
        ]
        yield write({"Records": found, "NextShardIterator": _token(shard, following), "MillisBehindLatest": behind})
        if not page:
            return


def _token(shard: int, page: int) -> str:
    return f"shardId-{shard:012}:{page:06}"


def _listed(shard: int) -> dict[str, Any]:
    whole = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
    return {
        "ShardId": f"shardId-{shard:012}",
        "HashKeyRange": whole,
        "SequenceNumberRange": {"StartingSequenceNumber": "1"},
    }


def _as_json(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode()


def _as_cbor(value: Any) -> bytes:
    """Write RFC 8949, as much of it as is needed here."""
    match value:
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case list():
            return _head(4, len(value)) + b"".join(map(_as_cbor, value))
        case Mapping():
            parts = (part for item in value.items() for part in item)
            return _head(5, len(value)) + b"".join(map(_as_cbor, parts))
    raise TypeError(type(value))


def _head(kind: int, number: int) -> bytes:
    if number < 24:
        return bytes([kind << 5 | number])
    size = next(size for size in range(4) if number < 1 << (8 << size))
    return bytes([kind << 5 | 24 + size]) + number.to_bytes(1 << size, "big")
