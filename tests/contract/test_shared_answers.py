"""What every door to the workers' common memory promises: the real Redis, and its twin in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cli.servers import RedisServer
from clickstream.errors import Refused, Unavailable
from clickstream.place import Place
from connectors.redis_door import RedisDoor
from connectors.testing import InMemoryShared
from enrichment.shared import LastAccesses

OHIO, JAPAN = Place("US", "Ohio", "Columbus"), Place("JP")


@pytest.fixture(params=["memory", "redis"])
def shared(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return InMemoryShared({"1": "Ada", "2": "美咲"})
    door = RedisDoor(request.getfixturevalue("redis"))
    door.write_names([("1", "Ada"), ("2", "美咲")])
    return door


Access = tuple[str, str, str, str | None]


def access(moment: str, number: str = "10", location: str | None = "Columbus, Ohio, US", user: str = "1") -> Access:
    return (user, f"2021-07-12 {moment}.000000", number, location)


def together(*accesses: Access) -> LastAccesses:
    return LastAccesses(*map(list, zip(*accesses, strict=True)))


def test_places_and_names_are_read_together(shared: Any) -> None:
    shared.write({"8.8.8.8": OHIO, "::1": None})

    known = shared.read(["8.8.8.8", "::1", "9.9.9.9"], ["2", "nobody"], take_on=False)

    assert known.places == {"8.8.8.8": OHIO, "::1": None}
    assert known.names == {"2": "美咲"}
    assert not known.mine


def test_an_address_is_taken_on_by_one_worker_only(shared: Any) -> None:
    first = shared.read(["8.8.8.8"], [], take_on=True)
    second = shared.read(["8.8.8.8", "9.9.9.9"], [], take_on=True)

    assert set(first.mine) == {"8.8.8.8"}
    assert set(second.mine) == {"9.9.9.9"}


def test_an_address_that_was_answered_or_let_go_is_free_again(shared: Any) -> None:
    shared.read(["8.8.8.8", "9.9.9.9"], [], take_on=True)

    shared.let_go(["8.8.8.8"])
    shared.write({"9.9.9.9": JAPAN})

    again = shared.read(["8.8.8.8", "9.9.9.9"], [], take_on=True)
    assert set(again.mine) == {"8.8.8.8"}
    assert again.places == {"9.9.9.9": JAPAN}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_newest_access_wins_in_whatever_order_they_come(shared: Any, order: tuple[int, int]) -> None:
    two = [access("12:00:02", location="A, US"), access("12:00:01", location="B, US")]

    for place in order:
        shared.keep_newest(together(two[place]))

    assert shared.user("1")["last_access"] == "2021-07-12 12:00:02.000000"
    assert shared.user("1")["location"] == "A, US"
    assert shared.user("1")["name"] == "Ada"


@pytest.mark.parametrize("numbers", [("9", "10"), ("10", "9"), ("0099", "100"), ("100", "0099")])
def test_of_two_accesses_at_one_moment_the_larger_sequence_number_wins(shared: Any, numbers: tuple[str, str]) -> None:
    for number in numbers:
        shared.keep_newest(together(access("12:00:00", number, location=f"N{int(number)}, US")))

    assert shared.user("1")["location"] == f"N{max(map(int, numbers))}, US"


def test_keeping_an_access_twice_changes_nothing(shared: Any) -> None:
    shared.keep_newest(together(access("12:00:00"), access("12:00:00", user="2")))
    before = shared.user("1")

    shared.keep_newest(together(access("12:00:00"), access("12:00:00", user="2")))

    assert shared.user("1") == before


def test_an_access_of_unknown_place_leaves_the_place_that_is_there(shared: Any) -> None:
    shared.keep_newest(together(access("12:00:00")))

    shared.keep_newest(together(access("12:00:01", location=None)))

    assert shared.user("1")["location"] == "Columbus, Ohio, US"
    assert shared.user("1")["last_access"].startswith("2021-07-12 12:00:01")


def test_ids_that_look_like_commands_are_data(shared: Any) -> None:
    odd = "1 FLUSHALL\r\nDEL user:1\x00"

    shared.keep_newest(together(access("12:00:00", user=odd)))

    assert shared.user(odd)["last_access"].startswith("2021-07-12 12:00:00")
    assert shared.user("1")["name"] == "Ada"


# Redis alone


def test_places_expire_and_misses_sooner(redis: Any) -> None:
    RedisDoor(redis, place_seconds=100, unknown_seconds=10).write({"8.8.8.8": OHIO, "9.9.9.9": None})

    assert 90_000 < redis.pttl("ip:8.8.8.8") <= 100_000
    assert 9_000 < redis.pttl("ip:9.9.9.9") <= 10_000


def test_a_place_that_cannot_be_read_is_asked_for_again(redis: Any) -> None:
    redis.set("ip:8.8.8.8", b"rubbish")

    assert RedisDoor(redis).read(["8.8.8.8"], [], take_on=False).places == {}


def test_ten_thousand_look_ups_are_one_command(redis: Any) -> None:
    door = RedisDoor(redis)
    door.read(["8.8.8.8"], ["1"], take_on=False)  # loads the script
    redis.config_resetstat()

    door.read([f"8.8.{i // 256}.{i % 256}" for i in range(5000)], [str(i) for i in range(5000)], take_on=False)

    sent = {name: stats["calls"] for name, stats in redis.info("commandstats").items()}
    assert sent["cmdstat_evalsha"] == 1
    assert sent.keys() <= {"cmdstat_evalsha", "cmdstat_mget", "cmdstat_hget", "cmdstat_config", "cmdstat_info"}


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def test_a_redis_that_is_down_is_unavailable_and_comes_back_by_itself(mortal: RedisServer) -> None:
    door = RedisDoor.connect(mortal.url, timeout=0.2)
    door.read([], ["1"], take_on=False)

    mortal.stop()
    with pytest.raises(Unavailable):
        door.read([], ["1"], take_on=False)
    mortal.start()

    door._breaker._clock = lambda: 1e12  # the second has passed
    assert door.read([], ["1"], take_on=False).names == {}
    door.keep_newest(together(access("12:00:00")))


def test_a_redis_that_wants_a_password_refuses_at_start_up_and_does_not_say_it(mortal: RedisServer) -> None:
    mortal.client().config_set("requirepass", "right")

    with pytest.raises(Refused, match="password") as refused:
        RedisDoor.connect(mortal.url, "wrong-one").check()

    assert "wrong-one" not in str(refused.value)
    RedisDoor.connect(mortal.url, "right").check()


def test_a_read_only_redis_is_unavailable(mortal: RedisServer) -> None:
    mortal.client().replicaof("127.0.0.1", "1")

    with pytest.raises(Unavailable):
        RedisDoor.connect(mortal.url).keep_newest(together(access("12:00:00")))


def test_redis_knows_addresses_by_another_name_where_they_are_not_to_be_stored(redis: Redis) -> None:
    door = RedisDoor(redis, known_as=lambda address: f"hash-of-{address[:1]}")

    taken = door.read(["8.8.8.8", "9.9.9.9"], [], take_on=True)
    door.write({"8.8.8.8": OHIO})
    door.let_go(["9.9.9.9"])

    assert taken.mine == {"8.8.8.8", "9.9.9.9"}
    assert door.read(["8.8.8.8"], [], take_on=False).places == {"8.8.8.8": OHIO}
    assert redis.keys() == [b"ip:hash-of-8"]
