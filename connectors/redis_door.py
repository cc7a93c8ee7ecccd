"""The door to Redis: places, names and last accesses, one round trip a batch.

Doing any of it twice is harmless: answers are overwritten with themselves, and an access is kept only if it is newer.
When Redis is down or slow, a call fails within the time-out with `Unavailable`, and for a second all further calls do
so at once. Each script touches many keys, so a Redis in cluster mode will not do.
"""

import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, islice
from typing import Any, Final, Protocol, TypeVar

import msgspec
import redis
from msgspec.msgpack import encode
from redis.backoff import NoBackoff
from redis.retry import Retry

from clickstream.errors import Refused, Unavailable
from clickstream.place import Place
from connectors.breaker import CircuitBreaker, State
from enrichment.shared import LastAccesses, Shared

T = TypeVar("T")

# What a script is to do comes as MessagePack: packing ten thousand keys and arguments one by one costs redis-py more
# than Redis needs for all of the work. For the same reason answers go back as one text and the lengths of its parts.
_READ: Final = """
-- ARGV: keys of addresses, of users, and for how long to take an address on (ms; 0: never).
local addresses, users, lease = unpack(cmsgpack.unpack(ARGV[1]))
local call, found, lengths, count = redis.call, {}, {}, 0
local function answer(text)
  count = count + 1
  found[count], lengths[count] = text or '', text and #text or -1
end
for first = 1, #addresses, 1000 do
  local last = math.min(first + 999, #addresses)
  for i, text in ipairs(call('MGET', unpack(addresses, first, last))) do
    answer(text)
    if not text and lease > 0 and call('SET', 'asking:' .. addresses[first + i - 1], 1, 'NX', 'PX', lease) then
      lengths[count] = -2
    end
  end
end
for _, user in ipairs(users) do
  answer(call('HGET', user, 'name'))
end
return {table.concat(found), cmsgpack.pack(lengths)}
"""
_WRITE: Final = """
-- ARGV: keys of addresses, what is known of each, for how long (ms), and whether they may have been taken on.
local addresses, texts, lives, taken = unpack(cmsgpack.unpack(ARGV[1]))
for i, address in ipairs(addresses) do
  redis.call('SET', address, texts[i], 'PX', lives[i])
  if taken then
    redis.call('DEL', 'asking:' .. address)
  end
end
"""
# Each argument is done with before the next is unpacked, while it is still in the processor's cache.
_KEEP_NEWEST: Final = """
-- ARGV: in each the users' keys, the moments, the sequence numbers, and the locations or nothing.
local call = redis.call
local function wins(sequence, other)
  sequence, other = sequence:gsub('^0+', ''), (other or ''):gsub('^0+', '')
  return #sequence > #other or (#sequence == #other and sequence > other)
end
for _, packed in ipairs(ARGV) do
  local users, moments, sequences, locations = unpack(cmsgpack.unpack(packed))
  for i, user in ipairs(users) do
    local moment, sequence, location = moments[i], sequences[i], locations[i]
    local kept = call('HGET', user, 'last_access')
    if not kept or moment > kept or (moment == kept and wins(sequence, call('HGET', user, 'last_sequence'))) then
      if location then
        call('HSET', user, 'last_access', moment, 'last_sequence', sequence, 'location', location)
      else
        call('HSET', user, 'last_access', moment, 'last_sequence', sequence)
      end
    end
  end
end
"""
_PLACE: Final = msgspec.json.Decoder(Place | None)
_LENGTHS: Final = msgspec.msgpack.Decoder(list[int])
_MINE: Final = -2  # in the place of a length
_ACCESSES_AN_ARGUMENT: Final = 1000
_NAMES_A_TRIP: Final = 1000
_REWRITE_SECONDS: Final = 60.0  # for Redis to write its append-only file anew


class _Script(Protocol):
    def __call__(self, *, args: Sequence[bytes]) -> Any: ...


class RedisDoor:
    """What all workers know together (`ip:<address>`, `user:<id>`), kept in one Redis."""

    def __init__(
        self,
        client: "redis.Redis",
        *,
        place_seconds: float = 30 * 86_400,
        unknown_seconds: float = 600,
        lease_seconds: float = 30,
        known_as: Callable[[str], str] | None = None,
    ) -> None:
        self._client = client
        self._breaker = CircuitBreaker(failures=1, open_seconds=1.0)
        self._place_ms, self._unknown_ms = int(place_seconds * 1000), int(unknown_seconds * 1000)
        self._lease_ms = int(lease_seconds * 1000)
        self._known_as = known_as  # what an address is called in keys, if not by itself
        self._takes_on = False  # whether this worker ever takes addresses on
        self._read: _Script = client.register_script(_READ)
        self._write: _Script = client.register_script(_WRITE)
        self._keep_newest: _Script = client.register_script(_KEEP_NEWEST)

    @classmethod
    def connect(
        cls,
        url: str,
        password: str | None = None,
        *,
        timeout: float = 0.5,
        known_as: Callable[[str], str] | None = None,
    ) -> "RedisDoor":
        """Prepare a door to `redis://host:port/db`, or `rediss://` for TLS; nothing is connected yet."""
        options = {"password": password} if password else {}
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 1),  # a connection that died while idle is not an outage
            **options,
        )
        return cls(client, known_as=known_as)

    def check(self) -> None:
        """Raise `Refused` if Redis turns us away for good; that it is down is not a reason not to start."""
        try:
            self._client.ping()
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as refusal:
            raise Refused(f"Redis turned us away ({refusal}): look at redis `password` in the settings") from None
        except redis.RedisError as error:
            if certificate := _certificate_trouble(error):
                raise Refused(
                    f"Redis shows a certificate that is not accepted ({certificate}): look at redis `url` in the"
                    f" settings, where ?ssl_ca_certs=FILE names an authority of your own"
                ) from None

    @property
    def breaker(self) -> State:
        """Whether calls go through."""
        return self._breaker.state

    def read(self, addresses: Collection[str], user_ids: Collection[str], *, take_on: bool) -> Shared:
        self._takes_on |= take_on
        users = [f"user:{user_id}" for user_id in user_ids]
        wanted = (self._keys(addresses), users, self._lease_ms if take_on else 0)
        text, packed = self._run(self._read, encode(wanted))
        lengths = _LENGTHS.decode(packed)
        ends = accumulate(max(0, length) for length in lengths)
        parts = [text[end - length : end] if length >= 0 else None for end, length in zip(ends, lengths, strict=True)]
        located = {
            address: _read_place(part) for address, part in zip(addresses, parts, strict=False) if part is not None
        }
        return Shared(
            places={address: place for address, place in located.items() if place is not _UNREADABLE},
            names={
                user_id: part.decode(errors="replace")
                for user_id, part in zip(user_ids, parts[len(addresses) :], strict=True)
                if part
            },
            mine={address for address, length in zip(addresses, lengths, strict=False) if length == _MINE},
        )

    def write(self, places: Mapping[str, Place | None]) -> None:
        texts = list(map(_written, places.values()))
        lives = [self._unknown_ms if place is None else self._place_ms for place in places.values()]
        self._run(self._write, encode((self._keys(places), texts, lives, self._takes_on)))

    def let_go(self, addresses: Collection[str]) -> None:
        self._call(lambda: self._client.delete(*(f"asking:{key}" for key in self._keys(addresses))))

    def keep_newest(self, accesses: LastAccesses) -> None:
        columns = [[f"user:{user_id}" for user_id in accesses.user_ids], *accesses[1:]]
        firsts = range(0, len(accesses.user_ids), _ACCESSES_AN_ARGUMENT)
        packed = (encode([column[at : at + _ACCESSES_AN_ARGUMENT] for column in columns]) for at in firsts)
        self._run(self._keep_newest, *packed)

    def user(self, user_id: str) -> dict[str, str]:
        """Return what is known of a user: name, last_access, location."""
        kept: Any = self._call(lambda: self._client.hgetall(f"user:{user_id}"))
        return {field.decode(): value.decode(errors="replace") for field, value in kept.items()}

    def users(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield each key `user:<id>` once with what is kept there, in no order; one written meanwhile may be."""
        cursor: Any = 0
        keys: Any
        seen = set[bytes]()
        while True:
            cursor, keys = self._call(partial(self._client.scan, cursor, "user:*", _NAMES_A_TRIP))
            new = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(new)
            pipeline = self._client.pipeline(transaction=False)
            for key in new:
                pipeline.hgetall(key)
            for key, kept in zip(new, self._call(pipeline.execute), strict=True):
                fields = {name.decode(): value.decode(errors="replace") for name, value in kept.items()}
                yield key.decode(errors="replace"), fields
            if not cursor:
                return

    def forget(self, user_id: str, addresses: Collection[str]) -> int:
        """Remove a user, and the places of these addresses; return how many keys there were. Twice is harmless.

        Redis' append-only file, if there is one, is written anew without them, unless the server forbids that (managed
        ones do).
        """
        keys = [f"user:{user_id}", *(f"{kind}:{one}" for one in addresses for kind in ("ip", "asking:ip"))]
        removed = 0
        for start in range(0, len(keys), _NAMES_A_TRIP):
            some = keys[start : start + _NAMES_A_TRIP]
            removed += int(self._call(lambda some=some: self._client.delete(*some)))  # type: ignore[misc]
        self._call(self._write_file_anew)
        return removed

    def _write_file_anew(self) -> None:
        if not self._persistence().get("aof_enabled"):
            return
        with suppress(redis.ResponseError):
            self._client.bgrewriteaof()
            deadline = time.monotonic() + _REWRITE_SECONDS
            while any(self._persistence()[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled")):
                if time.monotonic() > deadline:
                    raise redis.TimeoutError("its append-only file is still being written anew")
                time.sleep(0.05)

    def _persistence(self) -> Any:
        return self._client.info("persistence")

    def knows(self, user_id: str, addresses: Collection[str]) -> int:
        """Count the keys that `forget` would remove."""
        keys = [f"user:{user_id}", *(f"ip:{one}" for one in addresses)]
        return sum(
            int(self._call(lambda some=keys[start : start + _NAMES_A_TRIP]: self._client.exists(*some)))  # type: ignore[misc]
            for start in range(0, len(keys), _NAMES_A_TRIP)
        )

    def write_names(self, names: Iterable[tuple[str, str]]) -> int:
        """Copy names into `user:<id>`, a thousand a round trip; return how many."""
        written, rest = 0, iter(names)
        while some := list(islice(rest, _NAMES_A_TRIP)):
            pipeline = self._client.pipeline(transaction=False)
            for user_id, name in some:
                pipeline.hset(f"user:{user_id}", "name", name)
            self._call(pipeline.execute)
            written += len(some)
        return written

    def close(self) -> None:
        self._client.close()

    def _keys(self, addresses: Collection[str]) -> list[str]:
        known_as = self._known_as
        return [f"ip:{address if known_as is None else known_as(address)}" for address in addresses]

    def _run(self, script: _Script, *arguments: bytes) -> Any:
        return self._call(lambda: script(args=arguments))

    def _call(self, ask: Callable[[], T]) -> T:
        def or_unavailable() -> T:
            try:
                return ask()
            except redis.RedisError as error:  # OSErrors come wrapped; a full or read-only Redis is no use either
                raise Unavailable(f"Redis did not do as asked: {type(error).__name__}") from error

        return self._breaker.call(or_unavailable)


def _certificate_trouble(error: BaseException | None) -> str | None:
    """Find what is wrong with the server's certificate behind what redis-py makes of it."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


_UNREADABLE: Final = object()


def _read_place(text: bytes) -> Any:
    try:
        return _PLACE.decode(text)
    except msgspec.MsgspecError:
        return _UNREADABLE  # not ours: ask again and overwrite it


def _written(place: Place | None) -> str:
    return msgspec.json.encode(place).decode()
