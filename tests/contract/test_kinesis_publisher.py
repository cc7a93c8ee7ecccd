"""What the Kinesis publisher promises, on a server that speaks the protocol."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.servers import Kinesalite
from clickstream.errors import Refused, Unavailable
from generator.kinesis import MAX_RECORD_BYTES, MAX_REQUEST_BYTES, KinesisPublisher
from generator.records import Published, Record

Place = tuple[str, str]  # a shard's id, a sequence number


@pytest.fixture
def client(kinesalite: Kinesalite) -> Iterator[Any]:
    client = kinesalite.client()
    yield client
    client.close()


def arrived(client: Any, stream: str) -> dict[Place, Record]:
    """Read a stream from its beginning, shard by shard."""
    records = {}
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        shard_id = shard["ShardId"]
        start = client.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
        iterator = start["ShardIterator"]
        while True:
            answer = client.get_records(ShardIterator=iterator, Limit=1000)
            for entry in answer["Records"]:
                records[shard_id, entry["SequenceNumber"]] = Record(entry["PartitionKey"], entry["Data"])
            if not answer["Records"]:
                break
            iterator = answer["NextShardIterator"]
    return records


def by_key(records: Iterator[Record]) -> dict[str, list[bytes]]:
    payloads = defaultdict(list)
    for record in records:
        payloads[record.partition_key].append(record.payload)
    return dict(payloads)


def test_every_record_arrives_once_and_those_of_a_key_in_order(client: Any, stream: str) -> None:
    records = [Record(str(number % 37), b"%d" % number) for number in range(1234)]

    published = KinesisPublisher(client, stream).publish(iter(records))

    there = arrived(client, stream)
    assert published == Published(1234)
    assert Counter(there.values()) == Counter(records)
    assert by_key(iter(there.values())) == by_key(iter(records))
    assert len({shard for shard, _ in there}) == 2


def test_it_tells_where_each_record_is(client: Any, stream: str) -> None:
    told: dict[Place, Record] = {}

    def on_accepted(record: Record, shard_id: str, sequence_number: str) -> None:
        told[shard_id, sequence_number] = record

    publisher = KinesisPublisher(client, stream, on_accepted=on_accepted)

    publisher.publish(Record(str(number), b"%d" % number) for number in range(600))

    assert len(told) == 600
    assert told == arrived(client, stream)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), max_size=20), st.text(min_size=1, max_size=64).filter(str.isprintable))
def test_any_bytes_arrive_as_they_were(client: Any, stream: str, payloads: list[bytes], key: str) -> None:
    before = arrived(client, stream)

    KinesisPublisher(client, stream).publish(Record(key, payload) for payload in payloads)

    new = [record for place, record in arrived(client, stream).items() if place not in before]
    assert new == [Record(key, payload) for payload in payloads]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        b"\x00\xff\xfe",
        b"{not json",
        '{"name": "Zoë 👩🏽‍🚀"}'.encode(),
        b"x" * (MAX_RECORD_BYTES - len(b"35")),
    ],
    ids=["empty", "newline", "not UTF-8", "not JSON", "emoji", "1 MiB with its key"],
)
def test_a_strange_record_arrives_between_ordinary_ones(client: Any, stream: str, payload: bytes) -> None:
    records = [Record("35", b"before"), Record("35", payload), Record("35", b"after")]

    assert KinesisPublisher(client, stream).publish(records) == Published(3)
    assert list(arrived(client, stream).values()) == records


@pytest.mark.parametrize("key", ["k", "k" * 256, "ключ", "👩" * 128, "0"])
def test_any_key_that_kinesis_takes_arrives(client: Any, stream: str, key: str) -> None:
    assert KinesisPublisher(client, stream).publish([Record(key, b"payload")]) == Published(1)
    assert list(arrived(client, stream).values()) == [Record(key, b"payload")]


def test_records_that_fill_more_than_one_request_all_arrive(client: Any, stream: str) -> None:
    records = [Record(str(number), bytes([number]) * (MAX_RECORD_BYTES - 10)) for number in range(12)]

    assert sum(len(record.payload) for record in records) > 2 * MAX_REQUEST_BYTES
    assert KinesisPublisher(client, stream).publish(records) == Published(12)
    assert Counter(arrived(client, stream).values()) == Counter(records)


def test_what_kinesis_would_never_take_is_counted_and_the_rest_arrives(client: Any, stream: str) -> None:
    records = [
        Record("35", b"before"),
        Record("35", b"x" * MAX_RECORD_BYTES),
        Record("", b"no key"),
        Record("k" * 257, b"a long key"),
        Record("35", b"after"),
    ]

    published = KinesisPublisher(client, stream).publish(records)

    assert (published.accepted, published.refusals) == (2, 3)
    assert [record.payload for record in arrived(client, stream).values()] == [b"before", b"after"]


def test_a_stream_that_does_not_exist_is_refused_at_once(client: Any) -> None:
    publisher = KinesisPublisher(client, "nobody-made-it", sleep=lambda _: pytest.fail("was tried again"))

    with pytest.raises(Refused, match=r"nobody-made-it.*ResourceNotFoundException.*Next:"):
        publisher.publish([Record("35", b"payload")])


def test_a_server_that_is_down_is_unavailable_and_once_it_is_back_takes_the_rest(tmp_path: Path) -> None:
    with Kinesalite(tmp_path / "kinesalite", durable=True) as server:
        server.create_stream("clicks")
        client = server.client()
        publisher = KinesisPublisher(client, "clicks", attempts=2, sleep=lambda _: None)
        publisher.publish([Record("35", b"first")])

        server.stop()
        with pytest.raises(Unavailable, match=r"did not take 1 records in 2 attempts.*Next:"):
            publisher.publish([Record("35", b"second")])

        server.start()
        publisher.publish([Record("35", b"third")])

        assert [record.payload for record in arrived(client, "clicks").values()] == [b"first", b"third"]
        client.close()
