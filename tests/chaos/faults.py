"""The faults: each is made for real, undone, and proves that it has hit.

A fault takes the scene, and returns what it hit in a sentence: the checkpoint, the phase, the records in flight. One
that finds nothing to hit raises `NoProof`.
"""

import errno
import json
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import Any, Final

import redis

from clickstream.place import Status
from generator.malformed import KINDS
from generator.records import Record
from tests.chaos.doors import EXPIRED, THROTTLED, Geo
from tests.chaos.scene import CLICKS, NoProof, Scene, Twist

Fault = Callable[[Scene], str]
TRIES: Final = 200  # checkpoints that may pass before one is caught in the act
BALLAST: Final = 1 << 20


# Flink


def killed_mid_checkpoint(scene: Scene) -> str:
    """Kill the JVM with -9 while a checkpoint is under way."""
    for _ in range(TRIES):
        (jvm,) = scene.processes("java", "flink")
        checkpoint = _next_checkpoint(scene)
        with _frozen(scene):
            if not (checkpoint / "_metadata").exists():
                os.kill(jvm, signal.SIGKILL)
                return f"{checkpoint.name} had begun and did not complete, {scene.in_flight:,} records in flight"
    raise NoProof(f"each of {TRIES} checkpoints was complete before it could be caught")


def killed_before_commit(scene: Scene) -> str:
    """Kill every process with -9 between a checkpoint's completion and the commit of its files."""
    for _ in range(TRIES):
        checkpoint = _next_checkpoint(scene)
        while checkpoint.exists() and not (checkpoint / "_metadata").exists():
            pass
        with _frozen(scene):
            complete = (checkpoint / "_metadata").exists()
            waiting = [file for file in scene.disk.glob("lake/*/*/*/*/*/.part-*") if _is_whole(file)]
            if complete and waiting:
                os.killpg(scene.job.pid, signal.SIGKILL)
                return (
                    f"{checkpoint.name} was complete and {len(waiting)} of its files were not committed,"
                    f" {scene.in_flight:,} records in flight"
                )
    raise NoProof(f"the files of each of {TRIES} checkpoints were committed before it could be caught")


def python_worker_killed(scene: Scene) -> str:
    """Kill the Python workers with -9."""
    workers = scene.processes("pyflink.fn_execution.beam.beam_boot", "python")
    recoveries = scene.job.recoveries
    if not workers:
        raise NoProof("there is no Python worker")
    scene.look()
    in_flight = scene.in_flight
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    scene.wait(lambda: set(scene.processes("beam_boot")) - set(workers), "the start of new workers")
    return (
        f"{len(workers)} worker processes, {in_flight:,} records in flight;"
        f" the job began again {scene.job.recoveries - recoveries} times"
    )


def _next_checkpoint(scene: Scene) -> Path:
    """Wait for a checkpoint to begin: its folder appears when it is triggered, `_metadata` when it is complete."""
    scene.look()
    known = set(scene.disk.glob("job/checkpoints/*/chk-*"))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if new := set(scene.disk.glob("job/checkpoints/*/chk-*")) - known:
            return new.pop()
        time.sleep(0.001)
    raise NoProof("no checkpoint has begun within a minute")


@contextmanager
def _frozen(scene: Scene) -> Iterator[None]:
    """Stop all processes of the job for a moment, to see what they were at."""
    os.killpg(scene.job.pid, signal.SIGSTOP)
    try:
        for process in scene.processes("java", "flink"):
            while not all(_is_stopped(thread) for thread in Path(f"/proc/{process}/task").iterdir()):
                time.sleep(0.001)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(scene.job.pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:  # it has ended
        return True


def _is_whole(file: Path) -> bool:
    """Tell whether a file that is not committed is closed: Parquet ends with its name."""
    try:
        return file.read_bytes().endswith(b"PAR1") and file.stat().st_size > 4
    except OSError:
        return False


# Redis


def redis_stopped(scene: Scene) -> str:
    """Stop Redis, and start it again with what it knew."""
    scene.redis.stop()
    try:
        rows = scene.wait_rows(100, lambda row: row["name_status"] == Status.UNAVAILABLE)
    finally:
        scene.redis.start()
    _names_are_back(scene)
    return f"{len(rows):,} rows were written without Redis"


def redis_hung(scene: Scene) -> str:
    """Stop Redis' process for a while: connections stay open and nothing is answered."""
    os.kill(scene.redis.pid, signal.SIGSTOP)
    try:
        rows = scene.wait_rows(100, lambda row: row["name_status"] == Status.UNAVAILABLE)
    finally:
        os.kill(scene.redis.pid, signal.SIGCONT)
    _names_are_back(scene)
    return f"{len(rows):,} rows were written while Redis hung"


def redis_slow(scene: Scene) -> str:
    """Let every call to Redis take a second, twice what the job waits for it."""
    scene.to_redis.delay = 1.0
    before = scene.to_redis.delayed
    try:
        rows = scene.wait_rows(100, lambda row: row["name_status"] == Status.UNAVAILABLE)
    finally:
        scene.to_redis.delay = 0.0
    _names_are_back(scene)
    return f"{scene.to_redis.delayed - before} calls took a second each, {len(rows):,} rows went on without them"


def redis_restarted_empty(scene: Scene) -> str:
    """Restart Redis with nothing in it; names come back with the next sync."""
    with scene.redis.client() as client:
        keys = client.dbsize()
        client.flushall()
    scene.redis.stop()
    scene.redis.start()
    if not keys or _users_with(scene, "name"):
        raise NoProof(f"Redis had {keys} keys before, and knows {_users_with(scene, 'name')} names after")
    rows = scene.wait_rows(100, lambda row: row["name_status"] == Status.UNKNOWN)
    scene.wait(lambda: _users_with(scene, "last_access"), "a last access in the empty Redis")
    scene.load_names()
    _names_are_back(scene)
    return f"{keys:,} keys were gone, {len(rows):,} rows had no name; last accesses are kept again"


def redis_read_only(scene: Scene) -> str:
    """Make Redis refuse every write, as a replica does."""
    with scene.redis.client() as client:
        client.replicaof("127.0.0.1", "1")
        try:
            try:
                client.set("chaos", "1")
            except redis.exceptions.ReadOnlyError:
                refused = True
            else:
                refused = False
            if not refused:
                raise NoProof("Redis took a write")
            rows = scene.wait_rows(100, lambda _: True)
        finally:
            client.replicaof("NO", "ONE")
        return f"a write was refused with READONLY, {len(rows):,} rows were written meanwhile"


def _users_with(scene: Scene, field: str) -> int:
    with scene.redis.client() as client:
        return sum(bool(client.hexists(key, field)) for key in client.scan_iter("user:*", count=1000))


def _names_are_back(scene: Scene) -> None:
    scene.wait_rows(20, lambda row: row["name_status"] == Status.FOUND)


# The geo provider


def geo_down(scene: Scene) -> str:
    """Let ipinfo.io hang up on every call."""
    return _geo(scene, "down")


def geo_slow(scene: Scene) -> str:
    """Let ipinfo.io take ten seconds for every call."""
    return _geo(scene, "slow")


def geo_limited(scene: Scene) -> str:
    """Let ipinfo.io answer 429 with Retry-After: 2."""
    return _geo(scene, "limited")


def geo_rubbish(scene: Scene) -> str:
    """Let ipinfo.io answer what is no JSON."""
    return _geo(scene, "rubbish")


def _geo(scene: Scene, mood: str) -> str:
    calls = scene.geo.calls[mood]
    with twisted(scene, from_elsewhere(scene.rng)):
        began = time.monotonic()
        scene.geo.mood = mood
        try:
            undecided = (Status.PENDING, Status.UNAVAILABLE)
            rows = scene.wait_rows(300, lambda row: row["geo_status"] in undecided)
        finally:
            scene.geo.mood = "well"
        seconds = time.monotonic() - began
        if scene.geo.calls[mood] == calls:
            raise NoProof("nobody asked ipinfo.io")
        scene.wait_rows(20, lambda row: row["geo_status"] == Status.FOUND)
    counts = Counter(row["geo_status"] for row in rows)
    delays = sorted(row["delay"] for row in rows)
    slow = f" of {Geo.SLOW:g} s each" if mood == "slow" else ""
    return (
        f"{scene.geo.calls[mood] - calls} calls{slow}; {counts[Status.PENDING]:,} rows pending and"
        f" {counts[Status.UNAVAILABLE]:,} unavailable at {len(rows) / seconds:,.0f} rows/s,"
        f" from arrival to commit {statistics.median(delays):.1f} s (95 %: {delays[int(len(delays) * 0.95)]:.1f} s)"
    )


# S3


def s3_down(scene: Scene) -> str:
    """Let S3 hang up on every call for twelve seconds."""
    before, hung_up = len(scene.committed), scene.to_s3.hung_up
    scene.to_s3.hang_up()
    try:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            scene.look()
            time.sleep(0.1)
        in_flight = scene.in_flight
    finally:
        scene.to_s3.cut = False
    if scene.to_s3.hung_up == hung_up:
        raise NoProof("nobody asked S3")
    return (
        f"{scene.to_s3.hung_up - hung_up} connections refused, {len(scene.committed) - before:,} records committed"
        f" meanwhile, {in_flight:,} in flight when it came back; the job began again {scene.job.recoveries} times"
    )


# Kinesis


def offers_throttled(scene: Scene) -> str:
    """Turn away half of the offers in each PutRecords, and every fourth call as a whole."""
    before = Counter(scene.front.made)
    scene.front.failing = 0.5
    try:
        scene.wait(lambda: _made(scene, before)["entries turned away"] >= 20, "offers turned away")
        scene.wait(lambda: _made(scene, before)[THROTTLED] >= 3, "throttled calls")
    finally:
        scene.front.failing = 0.0
    made = _made(scene, before)
    return f"{made['entries turned away']} entries turned away, {made[THROTTLED]} whole calls throttled"


def iterator_expired(scene: Scene) -> str:
    """Answer GetRecords of every shard with an expired iterator."""
    before = Counter(scene.front.made)
    scene.front.expiring = 4
    scene.wait(lambda: not scene.front.expiring, "a call to GetRecords")
    return f"{_made(scene, before)[EXPIRED]} calls met an expired iterator, {scene.in_flight:,} records in flight"


def resharded(scene: Scene) -> str:
    """Split a shard, and merge its halves again, under load."""
    first = _open_shards(scene)[0]
    low, high = (int(first["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
    scene.client.split_shard(
        StreamName=CLICKS, ShardToSplit=first["ShardId"], NewStartingHashKey=str((low + high) // 2)
    )
    scene.wait(lambda: len(_open_shards(scene)) == 3, "the split")
    halves = [one["ShardId"] for one in _open_shards(scene) if one.get("ParentShardId") == first["ShardId"]]
    for half in halves:
        scene.wait_rows(1, lambda row, half=half: row["shard_id"] == half)  # type: ignore[misc]
    scene.client.merge_shards(StreamName=CLICKS, ShardToMerge=halves[0], AdjacentShardToMerge=halves[1])
    scene.wait(lambda: len(_open_shards(scene)) == 2, "the merge")
    (merged,) = [one["ShardId"] for one in _open_shards(scene) if one.get("ParentShardId") in halves]
    scene.wait_rows(1, lambda row: row["shard_id"] == merged)
    return f"{first['ShardId'][-3:]} was split into {', '.join(h[-3:] for h in halves)}, merged into {merged[-3:]}"


def shard_count_updated(scene: Scene) -> str:
    """Let the stream itself double its shards, and halve their number again, under load."""
    steps = []
    for count in (4, 2):
        before = _open_shards(scene)
        scene.look()
        scene.wait(lambda: scene.in_flight, "a record in flight")
        in_flight = scene.in_flight
        scene.client.update_shard_count(StreamName=CLICKS, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        scene.wait(lambda: _is_active(scene), "the end of UpdateShardCount")
        after = _open_shards(scene)
        if len(after) != count or _ids(after) & _ids(before):
            raise NoProof(f"UpdateShardCount to {count} has made {_list(before)} into {_list(after)}")
        for shard in sorted(_ids(after)):
            scene.wait_rows(1, lambda row, shard=shard: row["shard_id"] == shard)  # type: ignore[misc]
        steps.append(f"{_list(before)} became {_list(after)} with {in_flight:,} records in flight")
    return f"{', '.join(steps)}; rows came from each of them"


def _is_active(scene: Scene) -> bool:
    stream = scene.client.describe_stream_summary(StreamName=CLICKS)["StreamDescriptionSummary"]
    return bool(stream["StreamStatus"] == "ACTIVE")


def _ids(shards: list[Mapping[str, Any]]) -> set[str]:
    return {one["ShardId"] for one in shards}


def _list(shards: list[Mapping[str, Any]]) -> str:
    return " ".join(sorted(shard[-3:] for shard in _ids(shards)))


def _made(scene: Scene, before: Counter[str]) -> Counter[str]:
    return scene.front.made - before


def _open_shards(scene: Scene) -> list[Mapping[str, Any]]:
    shards = scene.client.list_shards(StreamName=CLICKS)["Shards"]
    return [one for one in shards if "EndingSequenceNumber" not in one["SequenceNumberRange"]]


# What clients send


def clocks_years_off(scene: Scene) -> str:
    """Let half of the clients live in other years."""
    rng, years = scene.rng, (1971, 2009, 2087, 9999)

    def elsewhen(record: Record) -> Record:
        if rng.random() < 0.5:
            return record
        return _changed(record, timestamp=f"{rng.choice(years)}-07-12 12:01:58.732726")

    with twisted(scene, elsewhen):
        rows = scene.wait_rows(200, lambda row: row["timestamp"].year in years)
    folders = {file.partition[:9] for table in ("enriched", "raw") for file in scene.lake.files(table)}
    if len(folders) > 1:
        raise AssertionError(f"a client's clock has opened a partition: {folders}")
    return f"{len(rows):,} rows of the years {', '.join(map(str, years))}, all in partitions of {folders.pop()}"


def poison(scene: Scene) -> str:
    """Send one record of every malformed kind."""
    kinds, rng = list(KINDS), scene.rng
    before = set(scene.reasons)

    def poisoned(record: Record) -> Record:
        return record._replace(payload=KINDS[kinds.pop()](record.payload, rng)) if kinds and _valid(record) else record

    with twisted(scene, poisoned):
        scene.wait(lambda: not kinds and len(set(scene.reasons) - before) >= len(KINDS), "the rejection of all kinds")
    reasons = {scene.reasons[origin] for origin in set(scene.reasons) - before}
    return f"{len(KINDS)} kinds, rejected for {len(reasons)} different reasons"


def hot_key(scene: Scene) -> str:
    """Let one user cause half of all traffic."""
    rng = scene.rng

    def hot(record: Record) -> Record:
        return _changed(record._replace(partition_key="hot"), user_id="hot") if rng.random() < 0.5 else record

    with twisted(scene, hot):
        rows = scene.wait_rows(200, lambda row: row["user_id"] == "hot")
    since = min(row["arrival"] for row in rows)
    total = sum(row["arrival"] >= since for row in scene.rows)
    return f"{len(rows):,} of {total:,} rows are one user's"


@contextmanager
def twisted(scene: Scene, twist: Twist) -> Iterator[None]:
    """Change what is published for a while."""
    scene.twist = twist
    try:
        yield
    finally:
        scene.twist = None


def from_elsewhere(rng: Random) -> Twist:
    """Give every event an address that nobody has looked up yet."""
    return lambda record: _changed(record, user_ip=str(IPv4Address(rng.randrange(0x08000000, 0x09000000))))


def _changed(record: Record, **fields: Any) -> Record:
    return (
        record._replace(payload=json.dumps({**json.loads(record.payload), **fields}).encode())
        if _valid(record)
        else record
    )


def _valid(record: Record) -> bool:
    """Tell a record that is an event from one that the generator has broken."""
    try:
        event = json.loads(record.payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and isinstance(event.get("additional_data"), dict)


# The machine


def disk_full(scene: Scene) -> str:
    """Leave no byte free on the disk that holds the lake and the checkpoints."""
    if not os.path.ismount(scene.disk):
        raise NoProof(f"{scene.disk} is no disk of its own: mounting one takes root")
    ballast, recoveries = scene.disk / "ballast", scene.job.recoveries
    try:
        _fill(ballast)
        end = time.monotonic() + 6
        while time.monotonic() < end:
            _fill(ballast)
            scene.look()
            time.sleep(0.2)
        free = os.statvfs(scene.disk).f_bavail
        in_flight = scene.in_flight
        if free > 1 or not in_flight:
            raise NoProof(f"{free} blocks were free, {in_flight} records in flight")
    finally:
        ballast.unlink()
    again = scene.job.recoveries - recoveries
    return f"{free} blocks free for 6 s, {in_flight:,} records in flight; the job began again {again} times"


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for size in (BALLAST, 4096):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


FAULTS: Final[Mapping[str, tuple[str, Fault]]] = {
    "kill-checkpoint": ("Flink killed with -9 in the midst of a checkpoint", killed_mid_checkpoint),
    "kill-commit": ("Flink killed with -9 between checkpoint and commit", killed_before_commit),
    "kill-worker": ("Python workers killed with -9", python_worker_killed),
    "redis-stopped": ("Redis stopped", redis_stopped),
    "redis-hung": ("Redis hangs", redis_hung),
    "redis-slow": ("Redis slow", redis_slow),
    "redis-empty": ("Redis restarted empty", redis_restarted_empty),
    "redis-readonly": ("Redis read-only", redis_read_only),
    "geo-slow": ("geo provider takes 10 s", geo_slow),
    "geo-429": ("geo provider answers 429 with Retry-After", geo_limited),
    "geo-down": ("geo provider down", geo_down),
    "geo-rubbish": ("geo provider answers rubbish", geo_rubbish),
    "put-records": ("PutRecords fails in part, and is throttled", offers_throttled),
    "reshard": ("shard split and merged under load", resharded),
    "update-shard-count": ("UpdateShardCount to 4 and back to 2 under load", shard_count_updated),
    "iterator": ("shard iterators expired", iterator_expired),
    "clocks": ("clients' clocks years off", clocks_years_off),
    "poison": ("one poison record of every kind", poison),
    "hot-key": ("a hot key with half of all traffic", hot_key),
    "disk-full": ("the disk is full", disk_full),
    "s3-down": ("S3 down and back", s3_down),
}
"""By the name that picks one: what it is called in the table, and how it is made."""
