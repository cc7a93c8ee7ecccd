"""Records out of a Kinesis stream: every shard's in order, and a shard's only after those of its parents."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from clickstream.errors import Refused, Unavailable
from connectors.pauses import backoff
from connectors.positions import After, AtTimestamp, Checkpoint, Finished, Latest, Position, Start, TrimHorizon

MAX_RECORDS: Final = 2_000  # a call: with a slow webhook behind us the other shards wait as long
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html: five reads a second and shard,
# for all its readers together
PACE: Final = 0.25  # seconds between two reads of a shard
IDLE: Final = 1.0  # seconds until a shard that had nothing is read again
LISTING: Final = 10.0  # seconds between two looks for new shards, besides the one when a shard ends

_BUSY: Final = {
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ResourceInUseException",
    "Throttling",
    "ThrottlingException",
}
# botocore's errors by the names of their families, so that this file needs no AWS library
_UNREACHABLE: Final = {"ConnectionError", "HTTPClientError"}
_FROM_AWS: Final = {"BotoCoreError", "ClientError"}


class KinesisClient(Protocol):
    """The three methods of `boto3.client("kinesis")` that are needed here."""

    def list_shards(self, **request: Any) -> Any:
        """Take `StreamName` or a `NextToken`, answer `Shards` and perhaps a `NextToken`."""

    def get_shard_iterator(self, **request: Any) -> Any:
        """Take a shard and where to begin, answer a `ShardIterator`."""

    def get_records(self, **request: Any) -> Any:
        """Take a `ShardIterator`, answer `Records`, `MillisBehindLatest` and, until the end, `NextShardIterator`."""


class Record(NamedTuple):
    """What was put into the stream, and its origin; `arrival` is in UTC."""

    data: bytes
    shard_id: str
    sequence_number: str
    arrival: datetime


def read(
    client: KinesisClient,
    stream: str,
    start: Start = TrimHorizon(),  # noqa: B008  # it is frozen
    *,
    follow: bool = False,
    checkpoint: Checkpoint | None = None,
    seek: bool = True,
    attempts: int = 20,  # about a minute
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    rng: Random | None = None,
) -> Generator[Record, None, None]:
    """Yield the records of all shards, through splits and merges, at least once.

    Without `follow` this ends when every shard has been read up to the moment it began; with it, never. A `checkpoint`
    that knows the stream has the say over `start`. Asking for the next record says that the last one is handled; who
    stops in the middle calls `checkpoint.handled` for it. What the stream forgets before it is read is gone silently.

    A call that is throttled or fails in passing is made again, other shards meanwhile going on, and after `attempts`
    in a row raises `Unavailable`; a wrong name, a missing permission or a checkpoint of another stream is `Refused`.

    `seek=False` finds a moment by reading the shard from its beginning, for stand-ins: kinesalite never answers
    AT_TIMESTAMP for a shard that holds nothing later.
    """
    kept = checkpoint or Checkpoint(stream)
    chance = rng or Random()  # noqa: S311  # the length of a pause is no secret
    yield from _Reader(client, stream, start, follow, kept, seek, attempts, clock, sleep, chance).records()


@dataclass(slots=True)
class _Shard:
    shard_id: str
    parents: tuple[str, ...]
    open: bool  # it had no end when it was first listed
    iterator: str | None = None
    due: float = float("-inf")
    failures: int = 0
    caught_up: bool = False  # nothing more is wanted of it, though it goes on


@dataclass(slots=True)
class _Reader:
    client: KinesisClient
    stream: str
    start: Start
    follow: bool
    checkpoint: Checkpoint
    seek: bool
    attempts: int
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    rng: Random
    shards: dict[str, _Shard] = field(default_factory=dict)
    began: float = 0.0
    listing_due: float = 0.0

    @property
    def positions(self) -> dict[str, Position]:
        return self.checkpoint.positions

    def records(self) -> Iterator[Record]:
        self.began = self.clock()
        try:
            self._find_shards()
            while (shard := self._next_shard()) is not None:
                self._pause_until(shard.due)
                yield from self._turn(shard)
        finally:
            self.checkpoint.save()

    # Which shard

    def _next_shard(self) -> _Shard | None:
        """Choose the one that has waited longest; None when there will be nothing more to read."""
        while True:
            if self.follow and self.clock() >= self.listing_due:
                self._find_shards()
            shard = min(filter(self._readable, self.shards.values()), key=lambda one: one.due, default=None)
            if shard or not self.follow:
                return shard
            self._pause_until(self.clock() + IDLE)
            self.listing_due = self.clock()

    def _readable(self, shard: _Shard) -> bool:
        return not (shard.caught_up or self._finished(shard.shard_id)) and all(map(self._finished, shard.parents))

    def _finished(self, shard_id: str) -> bool:
        """Say whether a shard is behind us; one that is no longer listed has outlived its records."""
        return shard_id not in self.shards or self.positions[shard_id] == Finished()

    def _find_shards(self) -> None:
        """Learn of new shards: at first they begin where `start` says, later they are children, read from the front."""
        answers = self._list()
        listed = {shard["ShardId"]: shard for answer in answers for shard in answer["Shards"]}
        for shard_id in self.positions.keys() - listed.keys():
            if listed and self._finished(shard_id):
                del self.positions[shard_id]
                self.shards.pop(shard_id, None)
        afresh = not self.positions
        for shard_id in sorted(listed.keys() - self.shards.keys()):
            shard = self.shards[shard_id] = _shard(listed[shard_id])
            if afresh:
                self._begin(shard, moment=_server_time(answers[0]))
            self.positions.setdefault(shard_id, TrimHorizon())
        self.listing_due = self.clock() + LISTING

    def _list(self) -> list[Any]:
        answers = [self._insist("ListShards", self.client.list_shards, StreamName=self.stream)]
        while token := answers[-1].get("NextToken"):
            answers.append(self._insist("ListShards", self.client.list_shards, NextToken=token))
        return answers

    def _begin(self, shard: _Shard, moment: datetime) -> None:
        if not isinstance(self.start, Latest):
            self.positions[shard.shard_id] = self.start
        elif not shard.open:
            self.positions[shard.shard_id] = Finished()
        else:  # what arrives from now on is to be found again, however long the first record takes to come
            self.positions[shard.shard_id] = AtTimestamp(moment)
            shard.iterator = self._insist(
                "GetShardIterator",
                self.client.get_shard_iterator,
                StreamName=self.stream,
                ShardId=shard.shard_id,
                ShardIteratorType="LATEST",
            )["ShardIterator"]

    # What is in it

    def _turn(self, shard: _Shard) -> Iterator[Record]:
        """Read a shard once."""
        asked = self.clock()
        shard.due = asked + PACE
        try:
            if shard.iterator is None:
                shard.iterator = self._iterator(shard.shard_id)
            answer = self.client.get_records(ShardIterator=shard.iterator, Limit=MAX_RECORDS)
        except Exception as error:
            self._failed(shard, error)
            return
        shard.failures = 0
        shard.iterator = answer.get("NextShardIterator")
        for found in answer["Records"]:
            record = _record(shard.shard_id, found)
            if self._wanted(record):
                yield record
                self.checkpoint.handled(record.shard_id, record.sequence_number)
        behind = answer.get("MillisBehindLatest") or 0
        if shard.iterator is None:
            self.positions[shard.shard_id] = Finished()
            self.listing_due = self.clock()
        elif shard.open and not self.follow:
            shard.caught_up = _reached(asked - self.began, behind, len(answer["Records"]))
        elif shard.open and not answer["Records"] and not behind:
            shard.due += IDLE - PACE

    def _wanted(self, record: Record) -> bool:
        position = self.positions[record.shard_id]
        return not (isinstance(position, AtTimestamp) and record.arrival < position.moment)

    def _iterator(self, shard_id: str) -> str:
        where: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
        match self.positions[shard_id]:
            case After(sequence_number):
                where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence_number}
            case AtTimestamp(moment) if self.seek:
                where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": moment}
        answer = self.client.get_shard_iterator(StreamName=self.stream, ShardId=shard_id, **where)
        iterator: str = answer["ShardIterator"]
        return iterator

    # When it does not work

    def _failed(self, shard: _Shard, error: Exception) -> None:
        """Let the shard wait, longer each time; an iterator that expired is simply replaced."""
        if _code(error) == "ExpiredIteratorException":
            shard.iterator = None
            return
        why = self._passing("GetRecords", error)
        shard.failures += 1
        self._give_up_after(shard.failures, f"GetRecords of {shard.shard_id}", why)
        shard.due = max(shard.due, self.clock() + backoff(shard.failures, self.rng))

    def _insist(self, operation: str, call: Callable[..., Any], **request: Any) -> Any:
        failures = 0
        while True:
            try:
                return call(**request)
            except Exception as error:
                why = self._passing(operation, error)
            failures += 1
            self._give_up_after(failures, operation, why)
            self._pause_until(self.clock() + backoff(failures, self.rng))

    def _give_up_after(self, failures: int, what: str, why: str) -> None:
        if failures >= self.attempts:
            raise Unavailable(
                f"Kinesis stream {self.stream} did not answer {what} in {failures} attempts ({why}). "
                f"Next: see whether it is up and how many others read it, "
                f"aws kinesis describe-stream-summary --stream-name {self.stream}"
            )

    def _passing(self, operation: str, error: Exception) -> str:
        """Describe trouble that may pass; raise any other."""
        families = {kind.__name__ for kind in type(error).__mro__}
        if families & _UNREACHABLE:
            return f"{type(error).__name__}: {error}"
        if not families & _FROM_AWS:
            raise error
        code = _code(error)
        status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _BUSY or status >= 500:
            return f"{code}: {error}"
        kept = self.checkpoint.path
        suspicion = f" or that {kept} is of this stream and not of an earlier one by its name," if kept else ""
        asked = getattr(error, "operation_name", operation)
        raise Refused(
            f"Kinesis stream {self.stream} refused {asked} with {code} ({error}). "
            f"Next: check its name, region and your permissions,{suspicion} "
            f"aws kinesis describe-stream-summary --stream-name {self.stream}"
        ) from error

    def _pause_until(self, due: float) -> None:
        self.checkpoint.save_if_due()
        if (left := due - self.clock()) > 0:
            self.sleep(left)


def _reached(elapsed: float, behind: int, count: int) -> bool:
    """Say whether an answer goes up to the moment we began, `elapsed` seconds before it was asked for.

    It ends `behind` milliseconds before it was given, whatever our clock says. kinesalite is never behind, even if
    there is more; but then its answer is full.
    """
    return behind + 1 < elapsed * 1000 if behind else count < MAX_RECORDS


def _shard(listed: Any) -> _Shard:
    parents = (listed.get("ParentShardId"), listed.get("AdjacentParentShardId"))
    is_open = "EndingSequenceNumber" not in listed["SequenceNumberRange"]
    return _Shard(listed["ShardId"], tuple(parent for parent in parents if parent), is_open)


def _record(shard_id: str, found: Any) -> Record:
    arrival: datetime = found["ApproximateArrivalTimestamp"]
    return Record(found["Data"], shard_id, found["SequenceNumber"], arrival.astimezone(UTC))


def _server_time(answer: Any) -> datetime:
    """Read the time by the server's clock, to the second before; by ours if the answer does not say."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)


def _code(error: Exception) -> str:
    answer = getattr(error, "response", None) or {}
    code: str = answer.get("Error", {}).get("Code", type(error).__name__)
    return code
