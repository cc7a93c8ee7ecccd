"""Doors to nowhere: twins of the real ones that keep everything in memory and make the same promises."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from clickstream.errors import ClickstreamError, Unavailable
from clickstream.place import Place
from enrichment.shared import LastAccesses, Shared


@dataclass(slots=True)
class InMemoryGeo:
    """Knows the places it is given, and of all other addresses that nobody knows them; writes down what it is asked.

    It leaves out the addresses in `unanswerable`, and raises `trouble` as long as that is set.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    metered: bool = False
    unanswerable: Collection[str] = ()
    trouble: ClickstreamError | None = None
    calls: list[list[str]] = field(default_factory=list)
    closed: bool = False

    def find(self, addresses: Sequence[str]) -> Mapping[str, Place | None]:
        """Answer from the places given."""
        self.calls.append(list(addresses))
        if self.trouble is not None:
            raise self.trouble
        return {address: self.places.get(address) for address in addresses if address not in self.unanswerable}

    def close(self) -> None:
        """Remember that this was asked for."""
        self.closed = True


@dataclass(slots=True)
class InMemoryNames:
    """Keeps names by user id."""

    names: dict[str, str] = field(default_factory=dict)

    def write_names(self, names: Iterable[tuple[str, str]], /) -> int:
        """Keep them, and count those that came, the same ones twice if they come twice."""
        came = list(names)
        self.names.update(came)
        return len(came)


class _Entry(NamedTuple):
    number: int
    data: bytes
    arrival: float


@dataclass(slots=True)
class _Shard:
    shard_id: str
    first: int  # no sequence number in it is smaller
    parents: list[str] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)
    last: int | None = None  # once it is closed


@dataclass(slots=True)
class InMemoryKinesis:
    """One stream, read as strictly as Kinesis lets it be: five reads a second and shard, iterators of five minutes.

    Time is what `clock` says, in seconds since 1970. Trouble in `errors` is raised by the next calls, whichever they
    are; `calls` holds what was asked, by operation and shard, and `throttled` how many reads were too many.
    """

    shards: int = 1
    stream: str = "stream"
    clock: Callable[[], float] = time.time
    page: int = 100  # shards that one ListShards answers
    errors: deque[Exception] = field(default_factory=deque)
    calls: list[tuple[str, str]] = field(default_factory=list)
    throttled: int = 0
    _shards: dict[str, _Shard] = field(default_factory=dict)
    _opened: int = 0
    _number: int = 0  # the last sequence number given
    _reads: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _ in range(self.shards):
            self._open([])

    # As its owner

    def put(self, shard_id: str, *records: bytes) -> None:
        """Append to an open shard."""
        shard = self._shards[shard_id]
        if shard.last is not None:
            raise ValueError(f"{shard_id} is closed")
        shard.entries += [_Entry(self._next(), data, self.clock()) for data in records]

    def split(self, shard_id: str) -> tuple[str, str]:
        """Close a shard and open its two children."""
        self._close(shard_id)
        return self._open([shard_id]), self._open([shard_id])

    def merge(self, one: str, other: str) -> str:
        """Close two shards and open their child."""
        self._close(one)
        self._close(other)
        return self._open([one, other])

    def trim(self, shard_id: str) -> None:
        """Forget a closed shard, as Kinesis does when the last of its records is too old."""
        del self._shards[shard_id]

    def open_shards(self) -> list[str]:
        """Return the shards that take records."""
        return [shard.shard_id for shard in self._shards.values() if shard.last is None]

    # As its readers

    def list_shards(self, **request: Any) -> Any:
        """Answer a page of shards."""
        self._begin("ListShards", "")
        if ("StreamName" in request) == ("NextToken" in request):
            raise _service_error("ListShards", "InvalidArgumentException")
        self._known("ListShards", request.get("StreamName", self.stream))
        first = int(request.get("NextToken", 0))
        listed = [_listed(shard) for shard in self._shards.values()]
        more = {"NextToken": str(first + self.page)} if len(listed) > first + self.page else {}
        return {"Shards": listed[first : first + self.page], **more}

    def get_shard_iterator(self, **request: Any) -> Any:
        """Answer an iterator: the shard, the smallest sequence number still to come, and the time of the answer."""
        self._begin("GetShardIterator", request["ShardId"])
        self._known("GetShardIterator", request["StreamName"])
        shard = self._find("GetShardIterator", request["ShardId"])
        match request["ShardIteratorType"]:
            case "TRIM_HORIZON":
                number = 0
            case "LATEST":
                number = self._number + 1
            case "AFTER_SEQUENCE_NUMBER" if shard.first <= int(request["StartingSequenceNumber"]) <= self._number:
                number = int(request["StartingSequenceNumber"]) + 1
            case "AT_TIMESTAMP" if (moment := request["Timestamp"].timestamp()) <= self.clock():
                number = next((each.number for each in shard.entries if each.arrival >= moment), self._number + 1)
            case _:
                raise _service_error("GetShardIterator", "InvalidArgumentException")
        return {"ShardIterator": self._iterator(shard, number)}

    def get_records(self, **request: Any) -> Any:
        """Answer what comes next; no `NextShardIterator` after the last record of a closed shard."""
        shard_id, smallest, made = request["ShardIterator"].split("/")
        self._begin("GetRecords", shard_id)
        shard = self._find("GetRecords", shard_id)
        if self.clock() - float(made) > 300:
            raise _service_error("GetRecords", "ExpiredIteratorException")
        self._reads[shard_id] = [then for then in self._reads.get(shard_id, []) if then > self.clock() - 1]
        if len(self._reads[shard_id]) == 5:
            self.throttled += 1
            raise _service_error("GetRecords", "ProvisionedThroughputExceededException")
        self._reads[shard_id].append(self.clock())
        left = [entry for entry in shard.entries if entry.number >= int(smallest)]
        given, beyond = left[: request["Limit"]], left[request["Limit"] :]
        number = given[-1].number + 1 if given else int(smallest)
        at_end = shard.last is not None and not beyond
        return {
            "Records": [_given(entry) for entry in given],
            "MillisBehindLatest": int((self.clock() - beyond[0].arrival) * 1000) if beyond else 0,
            **({} if at_end else {"NextShardIterator": self._iterator(shard, number)}),
        }

    # Within

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _open(self, parents: list[str]) -> str:
        shard = _Shard(f"shardId-{self._opened:012d}", self._next(), parents)
        self._opened += 1
        self._shards[shard.shard_id] = shard
        return shard.shard_id

    def _close(self, shard_id: str) -> None:
        self._shards[shard_id].last = self._next()

    def _iterator(self, shard: _Shard, number: int) -> str:
        return f"{shard.shard_id}/{number}/{self.clock()}"

    def _begin(self, operation: str, shard_id: str) -> None:
        self.calls.append((operation, shard_id))
        if self.errors:
            raise self.errors.popleft()

    def _known(self, operation: str, stream: str) -> None:
        if stream != self.stream:
            raise _service_error(operation, "ResourceNotFoundException")

    def _find(self, operation: str, shard_id: str) -> _Shard:
        if shard_id not in self._shards:
            raise _service_error(operation, "ResourceNotFoundException")
        return self._shards[shard_id]


def _listed(shard: _Shard) -> Any:
    parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    end = {} if shard.last is None else {"EndingSequenceNumber": str(shard.last)}
    return parents | {
        "ShardId": shard.shard_id,
        "SequenceNumberRange": {"StartingSequenceNumber": str(shard.first), **end},
    }


def _given(entry: _Entry) -> Any:
    return {
        "Data": entry.data,
        "SequenceNumber": str(entry.number),
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(entry.arrival, UTC),
    }


def _service_error(operation: str, code: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "said the stand-in"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(answer, operation)


class InMemoryShared:
    """What all workers know together, in a dict: keeps `RedisDoor`'s promises, and counts the round trips."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.places: dict[str, Place | None] = {}
        self.users: dict[str, dict[str, str]] = {user_id: {"name": name} for user_id, name in (names or {}).items()}
        self.asking: set[str] = set()
        self.trips = 0
        self.down = False

    def read(self, addresses: Collection[str], user_ids: Collection[str], *, take_on: bool) -> Shared:
        self._trip()
        free = {a for a in addresses if a not in self.places and a not in self.asking} if take_on else set()
        self.asking |= free
        return Shared(
            places={address: self.places[address] for address in addresses if address in self.places},
            names={u: self.users[u]["name"] for u in user_ids if "name" in self.users.get(u, {})},
            mine=free,
        )

    def write(self, places: Mapping[str, Place | None]) -> None:
        self._trip()
        self.places.update(places)
        self.asking -= places.keys()

    def let_go(self, addresses: Collection[str]) -> None:
        self._trip()
        self.asking -= set(addresses)

    def keep_newest(self, accesses: LastAccesses) -> None:
        self._trip()
        for user_id, moment, sequence_number, location in zip(*accesses, strict=True):
            user = self.users.setdefault(user_id, {})
            kept = (user.get("last_access", ""), int(user.get("last_sequence", "0")))
            if (moment, int(sequence_number)) > kept:
                user |= {"last_access": moment, "last_sequence": sequence_number}
                if location is not None:
                    user["location"] = location

    def user(self, user_id: str) -> dict[str, str]:
        """Return what is known of a user."""
        return self.users.get(user_id, {})

    def _trip(self) -> None:
        self.trips += 1
        if self.down:
            raise Unavailable("the shared memory is switched off")
