"""`clickstream privacy` over a lake, a Redis and a users database."""

import json
import sqlite3
import stat
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from cli.main import app
from cli.person import Places, out_of_reach
from cli.servers import RedisServer
from clickstream.errors import Refused, Unavailable
from clickstream.schema import ENRICHED, RAW
from connectors.customers import Customer
from connectors.lake import Lake
from connectors.redis_door import RedisDoor
from connectors.users import Users
from tests.events import EXAMPLE, payload

HOUR = "year=2021/month=07/day=12/hour=12"
ORIGIN = {"arrival_timestamp": datetime(2021, 7, 12, 12, tzinfo=UTC), "shard_id": "shardId-0", "sequence_number": "1"}


@pytest.fixture
def folder(tmp_path: Path, redis: Redis) -> Path:
    """A folder of local runs, with two users everywhere."""
    lake = Lake(str(tmp_path / "lake"))
    moment = datetime(2021, 7, 12, tzinfo=UTC)
    for number, user in enumerate(("35", "7")):
        event = {**EXAMPLE, "timestamp": moment, "insertion_timestamp": moment, "user_id": user, **ORIGIN}
        lake.write("enriched", HOUR, f"part-{number}", pa.Table.from_pylist([event], ENRICHED))
        records = [{"payload": payload(user_id=user), **ORIGIN}, {"payload": b'\xff "user_id":"35"', **ORIGIN}]
        lake.write("raw", HOUR, f"part-{number}", pa.Table.from_pylist(records, RAW))
        redis.hset(f"user:{user}", mapping={"name": "<b>Zoë</b>", "last_access": "2021-07-12 12:01:58.732726"})
    redis.set("ip:111.33.64.227", b"null")
    redis.set("ip:8.8.8.8", b"null")
    with Users(f"sqlite:///{tmp_path / 'users.db'}") as users:
        users.create()
        users.load(Customer(user, "pixel", f"Zoë of {user}", Decimal("0.25")) for user in ("35", "7"))
    return tmp_path


def privacy(folder: Path, server: RedisServer, *words: str) -> Result:
    return CliRunner().invoke(app, ["privacy", *words, "--folder", str(folder), "--redis", server.url])


def test_erase_leaves_nothing_of_the_user_and_everything_of_others(
    folder: Path, redis: Redis, redis_server: RedisServer
) -> None:
    done = privacy(folder, redis_server, "erase", "--user", "35", "--yes", "--asked-by", "ticket 4711")

    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for line in ("enriched 1 0", "raw 3 0", "users database 1 0", "keys in Redis 2 0", "until 2", "dead-letter"):
        assert line in said
    lake = Lake(str(folder / "lake"))
    assert [row["user_id"] for file in lake.files("enriched") for row in lake.read(file).to_pylist()] == ["7"]
    assert set(redis.scan_iter("*")) == {b"user:7", b"ip:8.8.8.8"}
    assert b"Zo\xc3\xab of 35" not in (folder / "users.db").read_bytes()
    with sqlite3.connect(folder / "users.db") as database:
        assert database.execute("SELECT customer_id FROM customers").fetchall() == [("7",)]
    assert lake.files("_erasures")


@pytest.mark.parametrize("home", [".", "follow"])
def test_erase_reaches_what_the_redis_of_a_run_has_left_in_its_file(folder: Path, home: str) -> None:
    kept = folder / home / "redis"
    with RedisServer(kept, durable=True) as server, server.client() as client:
        client.hset("user:35", mapping={"name": "Zoë of 35"})
        client.hset("user:7", mapping={"name": "Zoë of 7"})

    done = CliRunner().invoke(app, ["privacy", "erase", "--user", "35", "--yes", "--folder", str(folder)])

    assert done.exit_code == 0, done.output
    assert "keys in Redis 1 0" in " ".join(done.output.split())
    left = b"".join(file.read_bytes() for file in kept.rglob("*") if file.is_file() and file.name != "server.log")
    assert "Zoë of 7".encode() in left
    assert b"of 35" not in left


def test_erasing_again_finds_nothing_and_is_no_failure(folder: Path, redis_server: RedisServer) -> None:
    privacy(folder, redis_server, "erase", "--user", "35", "--yes")

    again = privacy(folder, redis_server, "erase", "--user", "35", "--yes")

    assert again.exit_code == 0
    assert "0 files rewritten" in again.output


def test_nothing_is_erased_where_nobody_can_confirm_it(folder: Path, redis: Redis, redis_server: RedisServer) -> None:
    done = privacy(folder, redis_server, "erase", "--user", "35")

    assert isinstance(done.exception, Refused)
    assert str(done.exception).startswith("found 1 rows of enriched, 3 rows of raw, a customer, a key in Redis.")
    assert str(done.exception).endswith("Next: add --yes")
    assert redis.exists("user:35")


def test_export_hands_over_all_there_is_to_its_owner_alone(folder: Path, redis_server: RedisServer) -> None:
    to = folder / "35.json"

    done = privacy(folder, redis_server, "export", "--user", "35", "--to", str(to))

    assert done.exit_code == 0, done.output
    handed = json.loads(to.read_bytes())
    assert handed["customer"]["name"] == "Zoë of 35"
    assert handed["redis"]["name"] == "<b>Zoë</b>"
    assert [row["timestamp"] for row in handed["tables"]["enriched"]] == ["2021-07-12T00:00:00Z"]
    broken = {"base64": "/yAidXNlcl9pZCI6IjM1Ig=="}
    records = [row["payload"] for row in handed["tables"]["raw"]]
    assert sorted(map(str, records)) == sorted(map(str, [payload(user_id="35").decode(), broken, broken]))
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


def test_an_export_of_nobody_is_a_document_too(folder: Path, redis_server: RedisServer) -> None:
    to = folder / "nobody.json"

    privacy(folder, redis_server, "export", "--user", "nobody", "--to", str(to))

    handed = json.loads(to.read_bytes())
    assert (handed["customer"], handed["redis"], handed["tables"]) == (None, {}, {})


def test_an_export_that_cannot_be_written_says_where_else(folder: Path, redis_server: RedisServer) -> None:
    done = privacy(folder, redis_server, "export", "--user", "35", "--to", str(folder / "no" / "where.json"))

    assert isinstance(done.exception, Refused)
    assert "choose another place with --to" in str(done.exception)


def test_a_redis_that_is_down_stops_an_erase_before_it_claims_anything(folder: Path) -> None:
    words = ["privacy", "erase", "--user", "35", "--yes", "--folder", str(folder), "--redis", "redis://127.0.0.1:1"]

    done = CliRunner().invoke(app, words)

    assert isinstance(done.exception, Unavailable)
    assert "left" not in done.output


def test_what_is_out_of_reach_is_listed_with_its_end(tmp_path: Path) -> None:
    places = Places("s3://lake", Lake(str(tmp_path)), "sqlite://", None, None, None, None)
    (tmp_path / "enriched").mkdir()
    (tmp_path / "enriched" / ".part-0.inprogress").write_bytes(b"x")

    lines = "\n".join(out_of_reach(places, datetime(2026, 1, 1, tzinfo=UTC), 48))

    for part in ("2026-01-03 00:00 UTC", "1 files of the lake", "older versions", "Firehose", "--redis", "14 days"):
        assert part in lines


def test_forgetting_a_user_twice_is_harmless(redis: Redis, redis_server: RedisServer) -> None:
    door = RedisDoor.connect(redis_server.url)
    redis.hset("user:35", "name", "Zoë")
    redis.set("asking:ip:8.8.8.8", 1)

    assert door.knows("35", {"8.8.8.8"}) == 1
    assert door.forget("35", {"8.8.8.8"}) == 2
    assert door.forget("35", {"8.8.8.8"}) == 0
    assert not redis.keys()
