import json
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from hypothesis import given, settings
from hypothesis import strategies as st

from clickstream.errors import Refused, Unavailable
from connectors.kinesis_reader import MAX_RECORDS, Record, read
from connectors.positions import After, AtTimestamp, Checkpoint, Finished, Latest, TrimHorizon
from connectors.testing import InMemoryKinesis

FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"


class TimeUpError(Exception):
    """Ends a reader that follows."""


@dataclass
class Clock:
    """Time passes only while somebody sleeps, and brings what was arranged for it."""

    now: float = 1_800_000_000.0
    end: float = float("inf")
    arranged: deque[tuple[float, Callable[[], object]]] = field(default_factory=deque)

    def __call__(self) -> float:
        return self.now

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        self.arranged.append((self.now + seconds, action))

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.arranged and self.arranged[0][0] <= until:
            self.now, action = self.arranged.popleft()
            action()
        self.now = max(until, self.now)
        if self.now >= self.end:
            raise TimeUpError


@dataclass
class World:
    """A stream in memory, and readers of it on the same clock."""

    clock: Clock
    kinesis: InMemoryKinesis

    def read(self, *start: Any, **options: Any) -> Any:
        return read(self.kinesis, "stream", *start, clock=self.clock, sleep=self.clock.sleep, rng=Random(1), **options)

    def follow(self, *start: Any, seconds: float, **options: Any) -> list[Record]:
        self.clock.end = self.clock.now + seconds
        found: list[Record] = []
        with suppress(TimeUpError), closing(self.read(*start, follow=True, **options)) as records:
            found.extend(records)  # keeps what came before the end
        assert self.clock.now >= self.clock.end
        self.clock.end = float("inf")
        return found


def world(shards: int = 1, *, kind: type[InMemoryKinesis] = InMemoryKinesis, **options: Any) -> World:
    clock = Clock()
    kinesis = kind(shards, clock=clock, **options)
    clock.sleep(60)
    return World(clock, kinesis)


class Dated(InMemoryKinesis):
    """Says what time it is, as every HTTP server does."""

    def list_shards(self, **request: Any) -> Any:
        now = datetime.fromtimestamp(self.clock(), UTC)
        headers = {"date": f"{now:%a, %d %b %Y %H:%M:%S} GMT"}
        return InMemoryKinesis.list_shards(self, **request) | {"ResponseMetadata": {"HTTPHeaders": headers}}


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [str(number).encode() for number in range(start, start + count)]


def data(records: Iterable[Record]) -> list[bytes]:
    return [record.data for record in records]


def service_error(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "said Kinesis"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetRecords")


# Everything there is


def test_every_record_of_every_shard_comes_once_and_each_shards_in_order() -> None:
    it = world(3)
    for index, shard in enumerate(it.kinesis.open_shards()):
        it.kinesis.put(shard, *numbers(2 * MAX_RECORDS + 7, start=index * 100_000))

    found = list(it.read())

    for index, shard in enumerate(it.kinesis.open_shards()):
        assert [r.data for r in found if r.shard_id == shard] == numbers(2 * MAX_RECORDS + 7, start=index * 100_000)
    assert len(found) == 3 * (2 * MAX_RECORDS + 7)


def test_a_record_brings_its_origin_along() -> None:
    it = world()
    it.kinesis.put(FIRST, b"a")

    (record,) = it.read()

    assert record == (b"a", FIRST, "2", datetime.fromtimestamp(it.clock.now, UTC))


def test_an_empty_stream_ends_at_once() -> None:
    it = world(2)
    began = it.clock.now

    assert list(it.read()) == []
    assert it.clock.now - began < 1


class NeverBehind(InMemoryKinesis):
    """As kinesalite."""

    def get_records(self, **request: Any) -> Any:
        return InMemoryKinesis.get_records(self, **request) | {"MillisBehindLatest": 0}


def test_a_full_answer_is_not_taken_for_the_end_by_a_server_that_is_never_behind() -> None:
    it = world(kind=NeverBehind)
    it.kinesis.put(FIRST, *numbers(MAX_RECORDS + 1))

    assert len(list(it.read())) == MAX_RECORDS + 1


def test_reading_ends_although_more_keeps_coming() -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(3 * MAX_RECORDS))
    found = []

    for record in it.read():
        found.append(record.data)
        it.clock.sleep(0.001)
        it.kinesis.put(FIRST, b"later", b"and later")
        assert len(found) < 10 * MAX_RECORDS

    assert found[: 3 * MAX_RECORDS] == numbers(3 * MAX_RECORDS)


def test_a_list_of_shards_over_many_pages_is_read_to_its_end() -> None:
    it = world(25, page=10)
    for shard in it.kinesis.open_shards():
        it.kinesis.put(shard, shard.encode())

    assert sorted(data(it.read())) == [shard.encode() for shard in it.kinesis.open_shards()]
    assert it.kinesis.calls.count(("ListShards", "")) == 3


def test_a_full_shard_does_not_keep_the_others_waiting() -> None:
    it = world(2)
    it.kinesis.put(FIRST, *numbers(10 * MAX_RECORDS))
    it.kinesis.put(SECOND, b"short")

    assert b"short" in data(islice(it.read(), MAX_RECORDS + 1))


def test_a_slow_reader_reads_up_to_the_moment_it_began_all_the_same() -> None:
    it = world()
    for number in numbers(3 * MAX_RECORDS):
        it.kinesis.put(FIRST, number)
        it.clock.sleep(0.001)
    found = []

    for record in it.read():
        found.append(record.data)
        it.clock.sleep(0.02)
        it.kinesis.put(FIRST, b"later")

    assert found[: 3 * MAX_RECORDS] == numbers(3 * MAX_RECORDS)
    assert len(found) <= 5 * MAX_RECORDS


# Splits and merges


def test_children_come_after_their_parent() -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(MAX_RECORDS + 1))
    left, right = it.kinesis.split(FIRST)
    it.kinesis.put(left, b"left")
    it.kinesis.put(right, b"right")

    found = data(it.read())

    assert found[: MAX_RECORDS + 1] == numbers(MAX_RECORDS + 1)
    assert sorted(found[MAX_RECORDS + 1 :]) == [b"left", b"right"]


def test_a_child_of_two_waits_for_both() -> None:
    it = world(2)
    it.kinesis.put(FIRST, b"a")
    it.kinesis.put(SECOND, *numbers(3 * MAX_RECORDS))
    it.kinesis.put(it.kinesis.merge(FIRST, SECOND), b"child")

    found = data(it.read())

    assert len(found) == 3 * MAX_RECORDS + 2
    assert found[-1] == b"child"


def test_a_parent_that_the_stream_has_forgotten_holds_nobody_up() -> None:
    it = world(2)
    left, right = it.kinesis.split(FIRST)
    child = it.kinesis.merge(right, SECOND)
    it.kinesis.put(left, b"left")
    it.kinesis.put(child, b"child")
    it.kinesis.trim(FIRST)
    it.kinesis.trim(SECOND)

    assert sorted(data(it.read())) == [b"child", b"left"]


def test_shards_that_appear_while_following_are_read_from_their_beginning() -> None:
    it = world()

    def reshard() -> None:
        it.kinesis.put(FIRST, b"1")
        left, right = it.kinesis.split(FIRST)
        it.kinesis.put(left, b"2")
        it.kinesis.put(right, b"2")
        it.kinesis.put(it.kinesis.merge(left, right), b"3")

    it.clock.at(30, reshard)

    found = it.follow(seconds=40)

    assert data(found) == [b"1", b"2", b"2", b"3"]


def test_a_child_is_found_within_two_seconds_of_its_parents_end() -> None:
    it = world(2)
    it.clock.at(33.3, lambda: it.kinesis.put(it.kinesis.split(FIRST)[0], b"child"))

    assert data(it.follow(seconds=35.3)) == [b"child"]


def test_a_stream_without_shards_yet_is_waited_for() -> None:
    it = world(0)
    it.clock.at(20, lambda: it.kinesis._open([]))
    it.clock.at(20, lambda: it.kinesis.put(FIRST, b"first"))

    assert data(it.follow(seconds=40)) == [b"first"]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    action = st.sampled_from(["put", "put", "put", "split", "merge", "wait"])
    return draw(st.lists(st.tuples(action, st.integers(0, 9), st.integers(0, 9)), max_size=40))


def enact(it: World, history: list[tuple[str, int, int]], gap: float) -> None:
    """Arrange for a history to happen, an event each `gap` seconds; every record says what it is."""

    def happen(action: str, one: int, other: int) -> None:
        shards = it.kinesis.open_shards()
        shard, second = shards[one % len(shards)], shards[other % len(shards)]
        if action == "put":
            it.kinesis.put(shard, *(f"{shard} {it.kinesis._number + extra}".encode() for extra in range(other)))
        elif action == "split":
            it.kinesis.split(shard)
        elif action == "merge" and shard != second:
            it.kinesis.merge(shard, second)

    for index, (action, one, other) in enumerate(history):
        it.clock.at(index * gap, lambda action=action, one=one, other=other: happen(action, one, other))  # type: ignore[misc]


def everything(it: World) -> Counter[bytes]:
    return Counter(entry.data for shard in it.kinesis._shards.values() for entry in shard.entries)


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from([0.0, 0.4, 7.0]))
def test_whatever_happens_to_the_shards_each_record_comes_once_and_in_order(
    history: list[tuple[str, int, int]], gap: float
) -> None:
    it = world(2)
    enact(it, history, gap)

    found = it.follow(seconds=len(history) * gap + 120)

    assert Counter(data(found)) == everything(it)
    places = defaultdict(list)
    for place, record in enumerate(found):
        places[record.shard_id].append(place)
    for shard in it.kinesis._shards.values():
        mine = places[shard.shard_id]
        assert [found[place].data for place in mine] == [entry.data for entry in shard.entries]
        assert all(place < min(mine, default=len(found)) for parent in shard.parents for place in places[parent])


# Where to begin


def test_latest_leaves_out_what_was_there_and_the_shards_that_are_closed() -> None:
    it = world(2)
    it.kinesis.put(FIRST, b"old")
    it.kinesis.put(SECOND, b"old")
    left, _ = it.kinesis.split(FIRST)
    it.kinesis.put(left, b"old")
    it.clock.at(5, lambda: it.kinesis.put(left, b"new"))
    it.clock.at(5, lambda: it.kinesis.put(SECOND, b"new"))

    assert data(it.follow(Latest(), seconds=10)) == [b"new", b"new"]
    assert ("GetRecords", FIRST) not in it.kinesis.calls


def test_a_moment_leaves_out_what_arrived_before() -> None:
    it = world(2)
    it.kinesis.put(FIRST, b"before")
    it.clock.sleep(10)
    moment = datetime.fromtimestamp(it.clock.now, UTC)
    it.kinesis.put(FIRST, b"then")
    it.clock.sleep(10)
    left, _ = it.kinesis.split(FIRST)
    it.kinesis.put(left, b"after")

    assert data(it.read(AtTimestamp(moment))) == [b"then", b"after"]
    assert data(it.read(AtTimestamp(moment), seek=False)) == [b"then", b"after"]


class WithoutMoments(InMemoryKinesis):
    """As kinesalite, which would not even answer."""

    def get_shard_iterator(self, **request: Any) -> Any:
        assert request["ShardIteratorType"] != "AT_TIMESTAMP"
        return InMemoryKinesis.get_shard_iterator(self, **request)


def test_without_seeking_a_moment_is_never_asked_for() -> None:
    it = world(kind=WithoutMoments)
    moment = datetime.fromtimestamp(it.clock.now, UTC)
    it.kinesis.put(FIRST, b"then")

    assert data(it.read(AtTimestamp(moment), seek=False)) == [b"then"]


# Trouble


def test_an_expired_iterator_is_replaced_after_the_last_record_read() -> None:
    it = world(2)
    it.kinesis.put(FIRST, *numbers(MAX_RECORDS + 5))
    it.kinesis.put(SECOND, b"other")
    found = []

    for record in it.read():
        found.append(record.data)
        if len(found) % 1000 == 0:
            it.clock.sleep(400)  # longer than an iterator lives

    assert Counter(found) == Counter([*numbers(MAX_RECORDS + 5), b"other"])


class BusyAtFirst(Dated):
    """Throttles the first read."""

    def get_records(self, **request: Any) -> Any:
        if ("GetRecords", FIRST) not in self.calls:
            self.errors.append(service_error("ProvisionedThroughputExceededException"))
        return InMemoryKinesis.get_records(self, **request)


def test_what_arrives_after_latest_is_not_lost_when_the_first_iterator_expires() -> None:
    it = world(kind=BusyAtFirst)
    it.kinesis.put(FIRST, b"old")
    it.clock.sleep(60)
    it.clock.at(0.01, lambda: it.kinesis.put(FIRST, b"new"))
    it.clock.at(0.02, lambda: it.clock.sleep(400))

    assert next(it.read(Latest(), follow=True)).data == b"new"
    assert it.kinesis.calls.count(("GetShardIterator", FIRST)) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        service_error("ProvisionedThroughputExceededException"),
        service_error("LimitExceededException"),
        service_error("KMSThrottlingException"),
        service_error("InternalFailure", 500),
        EndpointConnectionError(endpoint_url="http://kinesis.example"),
    ],
)
def test_trouble_that_passes_is_waited_out_with_longer_and_longer_pauses(trouble: Exception) -> None:
    it = world()
    it.kinesis.put(FIRST, b"a")
    it.kinesis.errors.extend([trouble] * 12)
    began = it.clock.now

    assert data(it.read(attempts=13)) == [b"a"]
    assert 10 < it.clock.now - began < 40


class FirstThrottled(InMemoryKinesis):
    """Throttles the first shard until five seconds after the first minute."""

    def get_records(self, **request: Any) -> Any:
        if request["ShardIterator"].startswith(FIRST) and self.clock() < Clock.now + 65:
            raise service_error("ProvisionedThroughputExceededException")
        return InMemoryKinesis.get_records(self, **request)


def test_a_throttled_shard_does_not_stop_the_others() -> None:
    it = world(2, kind=FirstThrottled)
    it.kinesis.put(FIRST, b"first")
    it.kinesis.put(SECOND, b"second")
    began = it.clock.now
    records = it.read()

    assert next(records).data == b"second"
    assert it.clock.now - began < 1
    assert data(records) == [b"first"]


def test_trouble_now_and_then_never_adds_up() -> None:
    it = world()
    for second in range(1, 100):
        it.clock.at(second, lambda: it.kinesis.errors.append(service_error("InternalFailure", 500)))
    it.clock.at(100, lambda: it.kinesis.put(FIRST, b"a"))

    assert data(it.follow(seconds=110)) == [b"a"]


def test_a_server_that_stays_away_is_unavailable() -> None:
    it = world()
    it.kinesis.errors.extend([EndpointConnectionError(endpoint_url="http://kinesis.example")] * 100)

    with pytest.raises(Unavailable, match=r"stream stream did not answer .* in 20 attempts .* Next: "):
        list(it.read())


class Throttled(InMemoryKinesis):
    """Throttles every read."""

    def get_records(self, **request: Any) -> Any:
        raise service_error("ProvisionedThroughputExceededException")


def test_a_shard_that_stays_throttled_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=f"GetRecords of {FIRST} in 20 attempts"):
        list(world(kind=Throttled).read(follow=True))


@pytest.mark.parametrize("trouble", [service_error("AccessDeniedException"), NoCredentialsError()])
def test_what_a_person_has_to_mend_is_refused_at_once(trouble: Exception) -> None:
    it = world()
    it.kinesis.errors.append(trouble)

    with pytest.raises(Refused, match=r"stream stream refused .* with .* Next: "):
        list(it.read())

    assert len(it.kinesis.calls) == 1


def test_a_stream_that_is_not_there_is_refused() -> None:
    it = world()

    with pytest.raises(Refused, match="stream clicks refused ListShards with ResourceNotFoundException"):
        list(read(it.kinesis, "clicks"))


def test_a_bug_is_not_taken_for_trouble() -> None:
    it = world()
    it.kinesis.errors.append(KeyError("Shards"))

    with pytest.raises(KeyError):
        list(it.read())


@pytest.mark.parametrize("shards", [1, 30])
def test_no_shard_is_read_more_than_five_times_a_second(shards: int) -> None:
    it = world(shards)
    for shard in it.kinesis.open_shards():
        it.kinesis.put(shard, *numbers(20 * MAX_RECORDS if shards == 1 else 1))

    it.follow(seconds=30)

    assert it.kinesis.throttled == 0
    assert all(it.kinesis.calls.count(("GetRecords", shard)) >= 25 for shard in it.kinesis.open_shards())


def test_an_idle_shard_is_read_once_a_second() -> None:
    it = world()

    it.follow(seconds=60)

    assert 55 <= it.kinesis.calls.count(("GetRecords", FIRST)) <= 61


# Checkpoints


def kept(it: World, folder: Path) -> Checkpoint:
    return Checkpoint.load(folder / "checkpoint", "stream")


def test_a_reader_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    it = world(2)
    it.kinesis.put(FIRST, *numbers(5))
    before = data(it.read(checkpoint=kept(it, tmp_path)))
    it.kinesis.put(FIRST, b"5")
    it.kinesis.put(SECOND, b"other")

    after = data(it.read(Latest(), checkpoint=kept(it, tmp_path)))

    assert before == numbers(5)
    assert after == [b"5", b"other"]


def test_a_record_counts_as_handled_when_the_next_one_is_asked_for(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(5))
    with closing(it.read(checkpoint=kept(it, tmp_path))) as records:
        next(records)
        next(records)

    assert data(it.read(checkpoint=kept(it, tmp_path))) == numbers(4, start=1)


def test_whoever_stops_in_the_middle_can_say_that_the_last_one_is_handled(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(5))
    checkpoint = kept(it, tmp_path)
    with closing(it.read(checkpoint=checkpoint)) as records:
        record = next(records)
        checkpoint.handled(record.shard_id, record.sequence_number)

    assert data(it.read(checkpoint=kept(it, tmp_path))) == numbers(4, start=1)


def test_a_finished_parent_is_not_read_again_and_its_new_children_are_from_the_start(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, b"parent")
    left, right = it.kinesis.split(FIRST)
    list(it.read(checkpoint=kept(it, tmp_path)))
    grandchild = it.kinesis.merge(left, right)
    it.kinesis.put(grandchild, b"grandchild")

    found = data(it.read(Latest(), checkpoint=kept(it, tmp_path)))

    assert found == [b"grandchild"]
    assert kept(it, tmp_path).positions == {
        FIRST: Finished(),
        left: Finished(),
        right: Finished(),
        grandchild: After(str(it.kinesis._number)),
    }


def test_forgotten_shards_leave_the_file(tmp_path: Path) -> None:
    it = world()
    left, right = it.kinesis.split(FIRST)
    list(it.read(checkpoint=kept(it, tmp_path)))
    it.kinesis.trim(FIRST)

    list(it.read(checkpoint=kept(it, tmp_path)))

    assert kept(it, tmp_path).positions == {left: TrimHorizon(), right: TrimHorizon()}


def test_what_comes_while_a_reader_of_the_latest_is_away_is_not_lost(tmp_path: Path) -> None:
    it = world(kind=Dated)
    it.kinesis.put(FIRST, b"old")
    it.clock.sleep(60)
    assert it.follow(Latest(), seconds=20, checkpoint=kept(it, tmp_path)) == []
    it.kinesis.put(FIRST, b"new")

    assert data(it.read(checkpoint=kept(it, tmp_path))) == [b"new"]


@settings(max_examples=40, deadline=None)
@given(histories(), st.lists(st.integers(0, 40), max_size=6), st.randoms(use_true_random=False))
def test_stops_and_crashes_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, int]], stops: list[int], rng: Random
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    it = world(2)
    enact(it, history, 0.1)
    found: list[Record] = []

    for stop in stops:
        checkpoint = Checkpoint.load(folder / "checkpoint", "stream")
        checkpoint.every, checkpoint.clock = 0.3, it.clock
        with closing(it.read(checkpoint=checkpoint)) as records:
            for record in islice(records, stop):
                found.append(record)
                it.clock.sleep(0.2)
            crashed = rng.random() < 0.5
            if crashed and (folder / "checkpoint").exists():  # as it is now, before the reader is closed
                shutil.copy(folder / "checkpoint", folder / "at the crash")
        if crashed and (folder / "at the crash").exists():
            shutil.copy(folder / "at the crash", folder / "checkpoint")
        it.clock.sleep(0.1)
    it.clock.sleep(len(history))
    found += it.read(checkpoint=Checkpoint.load(folder / "checkpoint", "stream"))

    assert Counter({record.data: 1 for record in found}) == everything(it)


def test_the_file_is_readable_and_replaced_as_a_whole(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, b"a")

    list(it.read(checkpoint=kept(it, tmp_path)))

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert json.loads((tmp_path / "checkpoint").read_text()) == {
        "stream": "stream",
        "shards": {FIRST: {"type": "after", "sequence_number": "2"}},
    }


def test_the_file_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(1000))
    checkpoint = kept(it, tmp_path)
    checkpoint.clock = it.clock
    versions = set()

    for _ in it.read(checkpoint=checkpoint):
        it.clock.sleep(0.01)
        versions.add((tmp_path / "checkpoint").read_bytes())

    assert 9 <= len(versions) <= 12


def test_the_file_catches_up_while_nothing_comes(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, *numbers(10))
    checkpoint = kept(it, tmp_path)
    checkpoint.clock = it.clock
    it.clock.at(4, lambda: shutil.copy(tmp_path / "checkpoint", tmp_path / "then"))

    it.follow(seconds=5, checkpoint=checkpoint)

    assert (tmp_path / "then").read_bytes() == (tmp_path / "checkpoint").read_bytes()
    assert checkpoint.positions == {FIRST: After("11")}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"stream": "stream"}',
        b'{"stream": "stream", "shards": {"a": {"type": "here"}}}',
        b'{"stream": "clicks", "shards": {}}',
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_no_checkpoint_of_this_stream_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(content)

    with pytest.raises(Refused, match=r"The checkpoint .*checkpoint .* Next: name another file"):
        Checkpoint.load(tmp_path / "checkpoint", "stream")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    it = world()
    it.kinesis.put(FIRST, b"a")

    with pytest.raises(Refused, match="cannot be written"):
        next(it.read(checkpoint=Checkpoint.load(tmp_path / "nowhere" / "checkpoint", "stream")))

    assert ("GetRecords", FIRST) not in it.kinesis.calls


def test_a_checkpoint_of_an_earlier_stream_of_this_name_is_refused(tmp_path: Path) -> None:
    old, new = world(), world()
    old.kinesis.put(FIRST, *numbers(10))
    list(old.read(checkpoint=kept(old, tmp_path)))

    with pytest.raises(
        Refused, match=r"refused GetShardIterator with InvalidArg.*checkpoint is of this stream and not of an earlier"
    ):
        list(new.read(checkpoint=kept(new, tmp_path)))
