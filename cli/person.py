"""Everywhere a person's data may be: searched, handed over, erased."""

import base64
import getpass
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Self

import msgspec
import typer

from cli import screen
from cli.servers import RedisServer, is_in_use, redis_files
from clickstream.decode import is_ip
from clickstream.errors import ClickstreamError, Refused, Unavailable
from clickstream.person import Person
from clickstream.place import public_address
from clickstream.settings import read_settings
from connectors.erasure import RECORDS, Erased, Erasure, count_files, search
from connectors.lake import Lake
from connectors.redis_door import RedisDoor
from connectors.secrets import secret
from connectors.users import Users


@dataclass(frozen=True)
class Places:
    """The lake, the users database and the Redis that are looked into; without one, what local runs kept of theirs."""

    root: str
    lake: Lake
    database: str
    database_password: str | None
    database_ca: Path | None
    redis: str | None
    redis_password: str | None
    kept: tuple[Path, ...] = ()  # folders in which a Redis that runs no more has left its data

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        lake: str | None,
        lake_endpoint: str | None,
        database: str | None,
        database_password: str | None,
        database_ca: Path | None,
        redis: str | None,
        redis_password: str | None,
    ) -> Self:
        """Take what is not given from the folder of local runs."""
        root = lake or str(folder / "lake")
        running = redis or _redis_of_run(folder)
        homes = [home / "redis" for home in _homes(folder)]
        return cls(
            root,
            Lake(root, lake_endpoint),
            database or f"sqlite:///{(folder / 'users.db').absolute()}",
            database_password,
            database_ca,
            running,
            redis_password,
            () if redis else tuple(home for home in homes if redis_files(home) and not is_in_use(home)),
        )

    @contextmanager
    def open(self) -> Iterator[tuple[Users | None, list[RedisDoor]]]:
        """Open the users database, None for a local file that is not there, and each Redis there is."""
        file = self.database.removeprefix("sqlite:///")
        with ExitStack() as opened:
            users = None
            if file == self.database or Path(file).is_file():
                users = Users(self.database, password=secret(self.database_password), tls_ca=self.database_ca)
                opened.callback(users.close)
            addresses = [(self.redis, secret(self.redis_password))] if self.redis else []
            addresses += [(opened.enter_context(RedisServer(home, durable=True)).url, None) for home in self.kept]
            doors = [RedisDoor.connect(url, password, timeout=5) for url, password in addresses]
            for door in doors:
                opened.callback(door.close)
                door.check()
            yield users, doors

    @property
    def has_redis(self) -> bool:
        """Whether there is a Redis to look into."""
        return self.redis is not None or bool(self.kept)


def erase(places: Places, user: str, *, asked_by: str | None, ask: bool, stream_hours: int) -> None:
    """Erase a user, search again, and say what was erased, what is left, and what is out of reach.

    The users database comes first, so that no sync brings the name back into Redis, and Redis comes last, since a row
    of the lake may just have been written with it.
    """
    person = _person(user)
    with places.open() as (users, doors):
        is_customer = users is not None and users.row(user) is not None
        if ask:
            in_redis = any(door.user(user) for door in doors)
            _ask(_found(places, person, is_customer=is_customer, in_redis=in_redis))
        if users is not None:
            users.remove(user)
        erasure = Erasure(places.lake, person, asked_by or getpass.getuser())
        screen.step("erasing from the lake, and searching it again")
        with _looking(2 * count_files(places.lake)) as looked:
            erased = erasure(looked)
        keys = redis_keys(erased.addresses)
        forgotten = sum(door.forget(user, keys) for door in doors) if doors else None
        left_in_redis = sum(door.knows(user, keys) for door in doors) if doors else None
        left_in_database = int(users.row(user) is not None) if users is not None else None
    rows: list[list[Any]] = [
        [table, erased.rows[table], erased.left[table]] for table in sorted({*places.lake.tables(), *erased.rows})
    ]
    rows.append(["users database", int(is_customer), left_in_database])
    rows.append(["keys in Redis", forgotten, left_in_redis])
    title = f"erase {erasure.erase_id}: {erased.files:,} files rewritten"
    screen.table(title, ["", "erased", "left"], rows, right=(1, 2))
    if erased.rows:
        screen.out.print(f"\nOn record in {RECORDS}/ of the lake, by table, hour and shard.", markup=False)
    screen.out.print("\nOut of reach, and until when:")
    for line in out_of_reach(places, datetime.now(UTC), stream_hours):
        screen.out.print(f"  - {line}", markup=False)
    if _is_left(erased) or left_in_redis or left_in_database:
        raise Unavailable(
            "what the job has committed meanwhile is left: this user is still clicking. Next: see that no more of it "
            "comes in, wait for the job's next checkpoint, and erase again"
        )


def export(places: Places, user: str, to: Path) -> None:
    """Write all there is of a user as one JSON document, a file of the lake at a time."""
    person = _person(user)
    half = to.with_name(f".{to.name}.part")
    try:
        with _private(half) as file, _looking(count_files(places.lake)) as looked:
            count = _write_export(file, person, places, looked)
        half.replace(to)
    except OSError as error:
        raise Refused(f"cannot write {to} ({error.strerror}): choose another place with --to") from None
    finally:
        half.unlink(missing_ok=True)
    screen.step(f"{count:,} rows are in {to}, with what the users database and Redis know")
    if not places.has_redis:
        screen.err.print("no Redis was named and none is running here: add --redis URL for what it knows", markup=False)


def redis_keys(addresses: set[str]) -> set[str]:
    """Return by what names Redis may know these addresses: as the lake has them, and in their shortest spelling."""
    shortest = {public_address(address) for address in addresses if is_ip(address)}
    return addresses | {address for address in shortest if address is not None}


def out_of_reach(places: Places, now: datetime, stream_hours: int) -> list[str]:
    """List what may still hold data of a user, until when, and what to do about it."""
    until = now + timedelta(hours=stream_hours)
    lines = []
    lines.append(
        f"records in the streams of clicks and offers: until {until:%Y-%m-%d %H:%M} UTC, if they are kept for "
        f"{stream_hours} h. Who reads them again from before brings them back: erase again after it"
    )
    lines.append("what the job has read and not committed yet: until its next checkpoint. Erase again after it")
    in_progress = sum(len(places.lake.unfinished(table)) for table in places.lake.tables())
    if in_progress:
        lines.append(
            f"{in_progress:,} files of the lake that are work in progress: until a checkpoint commits them. What "
            "a job that died has left of these (names that begin with a dot) is to be removed by hand"
        )
    if places.root.startswith("s3://"):
        lines.append("older versions of objects, if the bucket keeps them: until its lifecycle rule ends them")
        lines.append("what Firehose put into a bucket of its own: erase with --lake s3://THAT-BUCKET as well")
    if not places.has_redis:
        lines.append("Redis: none was named and none is running here. Name one with --redis URL, and erase again")
    lines.append("places of addresses in Redis, where the lake has these truncated: 30 days")
    lines.append("snapshots of Redis and of the users database, backups of the lake: until each expires")
    lines.append("the offers' dead-letter queue: 14 days at most")
    lines.append("exported dashboards and results of queries: ask who saved them")
    return lines


def _found(places: Places, person: Person, *, is_customer: bool, in_redis: bool) -> str:
    files = count_files(places.lake)
    rows: Counter[str] = Counter()
    screen.step(f"looking for the user in {files:,} files")
    with _looking(files) as looked:
        for one in search(places.lake, person, looked):
            rows[one.table] += one.rows
    found = [f"{count:,} rows of {table}" for table, count in sorted(rows.items())]
    return ", ".join(found + ["a customer"] * is_customer + ["a key in Redis"] * in_redis) or "nothing"


def _ask(found: str) -> None:
    if not sys.stdin.isatty():
        raise Refused(f"found {found}. There is nobody here to confirm that it goes. Next: add --yes")
    if not typer.confirm(f"Found {found}. Erase it for good?"):
        raise Refused("nothing was erased")


def _is_left(erased: Erased) -> bool:
    return any(erased.left.values())


def _write_export(file: IO[bytes], person: Person, places: Places, looked: Callable[[], None]) -> int:
    """Write the document piece by piece; return how many rows it holds."""
    with places.open() as (users, doors):
        head = {
            "user_id": person.user_id,
            "exported_at": datetime.now(UTC),
            "customer": users.row(person.user_id) if users is not None else None,
            "redis": next(filter(None, (door.user(person.user_id) for door in doors)), {} if doors else None),
        }
    file.write(msgspec.json.encode(head)[:-1] + b',"tables":{')
    table, count = None, 0
    for one in search(places.lake, person, looked):
        for row in one.data if isinstance(one.data, list) else one.data.to_pylist():
            if one.table == table:
                file.write(b",\n")
            else:
                file.write((b"\n],\n" if table else b"\n") + msgspec.json.encode(one.table) + b":[\n")
                table = one.table
            file.write(msgspec.json.encode(_readable(row)))
            count += 1
    file.write((b"\n]" if table else b"") + b"}}\n")
    return count


def _readable(value: Any) -> Any:
    """Show bytes as text, or as base64 where they are none, and that timestamps are UTC."""
    if isinstance(value, dict):
        return {name: _readable(inner) for name, inner in value.items()}
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if isinstance(value, bytes):
        try:
            return value.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    return value


def _person(user: str) -> Person:
    if not user:
        raise Refused("--user is empty: give the id as events name it, such as --user 35")
    return Person(user)


def _homes(folder: Path) -> list[Path]:
    """Return where local runs keep what is theirs; those that follow have a home of their own."""
    return [folder, folder / "follow"]


def _redis_of_run(folder: Path) -> str | None:
    """Return the Redis of the run that is under way in this folder; None if there is none."""
    for home in _homes(folder):
        with suppress(ClickstreamError):
            url = read_settings(home / "flink" / "application_properties.json").redis.url
            with closing(RedisDoor.connect(url, timeout=1)) as door:
                door.user("")
                return url
    return None


@contextmanager
def _looking(files: int) -> Iterator[Callable[[], None]]:
    looked = 0
    with screen.progress() as progress:

        def one_more() -> None:
            nonlocal looked
            looked += 1
            progress.show(f"{looked:,} of {max(files, looked):,} files searched")

        yield one_more


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
