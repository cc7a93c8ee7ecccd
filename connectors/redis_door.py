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
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clickstream.errors import Refused, Unavailable
from clickstream.place import Place
from connectors.breaker import CircuitBreaker, State
from enrichment.answers import Shared

if TYPE_CHECKING:
    from enrichment.steps import Access  # with it come numpy and pyarrow, and a Lambda has neither

T = TypeVar("T")

# What a script is to do comes as one MessagePack argument: packing ten thousand keys and arguments one by one costs
# redis-py more than Redis needs for all of the work.
_READ: Final = """
-- ARGV: addresses, users, for how long to take an address on (ms; 0: never).
local addresses, users, lease = unpack(cmsgpack.unpack(ARGV[1]))
local places, names = {}, {}
for i, address in ipairs(addresses) do
  local key = 'ip:' .. address
  places[i] = redis.call('GET', key)
  if not places[i] and lease > 0 and redis.call('SET', 'asking:' .. key, 1, 'NX', 'PX', lease) then
    places[i] = 'mine'
  end
end
for i, user in ipairs(users) do
  names[i] = redis.call('HGET', 'user:' .. user, 'name')
end
return {places, names}
"""
_WRITE: Final = """
-- ARGV: for each address its key, its JSON and its time to live (ms).
for _, place in ipairs(cmsgpack.unpack(ARGV[1])) do
  redis.call('SET', 'ip:' .. place[1], place[2], 'PX', place[3])
  redis.call('DEL', 'asking:ip:' .. place[1])
end
"""
_KEEP_NEWEST: Final = """
-- ARGV: for each access the user, the moment, the sequence number, and the location or nothing.
for _, access in ipairs(cmsgpack.unpack(ARGV[1])) do
  local key, moment, sequence, location = 'user:' .. access[1], access[2], access[3], access[4]
  local kept = redis.call('HMGET', key, 'last_access', 'last_sequence')
  local newer = not kept[1] or moment > kept[1]
  if moment == kept[1] then
    sequence = sequence:gsub('^0+', '')
    local other = (kept[2] or ''):gsub('^0+', '')
    newer = #sequence > #other or (#sequence == #other and sequence > other)
  end
  if newer and location then
    redis.call('HSET', key, 'last_access', moment, 'last_sequence', sequence, 'location', location)
  elseif newer then
    redis.call('HSET', key, 'last_access', moment, 'last_sequence', sequence)
  end
end
"""
_PLACE: Final = msgspec.json.Decoder(Place | None)
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
        wanted = (self._keys(addresses), list(user_ids), self._lease_ms if take_on else 0)
        places, names = self._run(self._read, wanted)
        located = dict(zip(addresses, places, strict=True))
        return Shared(
            places={
                address: place
                for address, text in located.items()
                if text and text != b"mine" and (place := _read_place(text)) is not _UNREADABLE
            },
            names={user: name.decode(errors="replace") for user, name in zip(user_ids, names, strict=True) if name},
            mine={address for address, text in located.items() if text == b"mine"},
        )

    def write(self, places: Mapping[str, Place | None]) -> None:
        lives = {True: self._unknown_ms, False: self._place_ms}
        encode = msgspec.json.encode
        keyed = zip(self._keys(places), places.values(), strict=True)
        self._run(self._write, [(key, encode(place).decode(), lives[place is None]) for key, place in keyed])

    def let_go(self, addresses: Collection[str]) -> None:
        self._call(lambda: self._client.delete(*(f"asking:ip:{address}" for address in self._keys(addresses))))

    def keep_newest(self, accesses: "Sequence[Access]") -> None:
        self._run(self._keep_newest, accesses)

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
        return list(addresses) if self._known_as is None else [self._known_as(address) for address in addresses]

    def _run(self, script: _Script, what: object) -> Any:
        return self._call(lambda: script(args=[msgspec.msgpack.encode(what)]))

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
