"""Asks the lake what an analyst asks of Athena and Redshift, with the same SQL files."""

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

from analytics.dialects import DialectName
from analytics.local import MEMORY, Answer, LocalLake
from cli import screen
from cli.servers import PROJECT, RedisServer, redis_files
from clickstream.errors import Refused
from connectors.lake import Lake
from connectors.redis_door import RedisDoor
from connectors.secrets import secret
from connectors.users import Users

SQL: Final = PROJECT / "analytics" / "sql"
FORMATS: Final = ("table", "csv", "json", "parquet")
ALL_DAYS: Final = {"since": "0001-01-01", "until": "9999-12-31"}
ROWS_SHOWN: Final = 1000
"""More rows than this are not for reading on a screen."""


class Query(NamedTuple):
    """A text of SQL, and in whose words it is."""

    name: str
    text: str
    dialect: DialectName

    @property
    def comment(self) -> str:
        """What it answers, in one sentence."""
        first = self.text.splitlines()[0] if self.text else ""
        return first.removeprefix("--").strip() if first.startswith("--") else ""


def queries() -> list[Query]:
    """List the queries that come with the platform."""
    files = sorted(SQL.glob("athena/*.sql")) + sorted(SQL.glob("redshift/*.sql"))
    return [_query(file) for file in files]


def find_query(name: str, dialect: DialectName | None = None) -> Query:
    """Find a query by its name, as a file, or, named `-`, on the standard input."""
    if name == "-":
        return Query("-", sys.stdin.read(), dialect or "athena")
    known = {query.name: query for query in queries()}
    if found := known.get(name.replace("-", "_")):
        return found
    if not Path(name).is_file():
        raise Refused(f"there is no query and no file {name}. Next: clickstream query lists the names")
    return _query(Path(name), dialect)


def _query(file: Path, dialect: DialectName | None = None) -> Query:
    in_words_of: DialectName = "redshift" if file.absolute().parent.name == "redshift" else "athena"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"cannot read {file} as a text of SQL: {error}") from None
    return Query(file.stem, text, dialect or in_words_of)


def days(since: str | None, until: str | None) -> dict[str, str]:
    """Check the first and the last day to look at, which are all days if not given."""
    given = {name: day for name, day in (("since", since), ("until", until)) if day is not None}
    for name, day in given.items():
        try:
            written = date.fromisoformat(day).isoformat()
        except ValueError:
            written = ""
        if written != day:  # 20261123 is a date, too, and no partition
            raise Refused(f"--{name} {day}: a day is written as 2026-11-23")
    return ALL_DAYS | given


@dataclass(frozen=True)
class Sources:
    """Where a local lake and the databases joined to it are: `clickstream query --help` explains each."""

    folder: Path
    lake: str
    lake_endpoint: str | None = None
    redis: str | None = None
    redis_password: str | None = None
    database: str | None = None
    database_password: str | None = None
    database_ca: Path | None = None
    memory: str = MEMORY
    values: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator[LocalLake]:
        """Open the lake for queries; what is copied or spilled meanwhile is gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="query-") as scratch:
            lake = LocalLake(
                Lake(self.lake, self.lake_endpoint),
                Path(scratch),
                objects=self.folder / "s3",
                redis=lambda: self._accesses(Path(scratch)),
                customers=self._customers,
                memory=self.memory,
            )
            with lake:
                yield lake

    def inserted(self) -> dict[str, str]:
        """Return what stands for `${lake}` and `${glue_database}` here."""
        root = self.lake if "://" in self.lake else str(Path(self.lake).absolute())
        return {"lake": root.rstrip("/"), "glue_database": "clickstream"}

    def _accesses(self, scratch: Path) -> Iterator[Mapping[str, Any]]:
        with ExitStack() as open_:
            url = self.redis or self._redis_of_last_run(scratch, open_)
            door = open_.enter_context(closing(RedisDoor.connect(url, secret(self.redis_password), timeout=10)))
            door.check()
            for key, fields in door.users():
                yield {"_key_": key, **fields}

    def _redis_of_last_run(self, scratch: Path, open_: ExitStack) -> str:
        """Start a Redis on a copy of what the last run's wrote, or the one under way writes: neither is disturbed."""
        kept = redis_files(self.folder / "redis")
        if not kept:
            raise Refused(
                f"the query joins Redis, and no run has left one in {self.folder}. "
                f"Next: clickstream run, or name a Redis with --redis redis://host:port/0"
            )
        copy = scratch / "redis"
        copy.mkdir()
        for one in kept:
            shutil.copytree(one, copy / one.name) if one.is_dir() else shutil.copy(one, copy)
        return open_.enter_context(RedisServer(copy, durable=True)).url

    def _customers(self) -> Iterator[Mapping[str, Any]]:
        url = self.database
        if url is None:
            file = self.folder / "users.db"
            if not file.is_file():
                raise Refused(
                    f"the query joins the users table, and there is no {file}. "
                    f"Next: clickstream run, clickstream users load FILE, or name a database with --database URL"
                )
            url = f"sqlite:///{file.absolute()}"
        with Users(url, password=secret(self.database_password), tls_ca=self.database_ca) as users:
            yield from users.customers()


def list_queries() -> None:
    """Print the names and what they answer."""
    for dialect in ("athena", "redshift"):
        rows = [[query.name, query.comment] for query in queries() if query.dialect == dialect]
        screen.table(f"{dialect.capitalize()}", ["name", "answers"], rows)


def run_query(query: Query, sources: Sources, format_: str | None, output: Path | None) -> None:
    """Run a query and show or write its answer."""
    format_ = _format(format_, output)
    with sources.opened() as lake, _progress(lake):
        answer = lake.ask(query.text, query.dialect, {**sources.inserted(), **sources.values})
        if answer.said:
            screen.err.print(answer.said, markup=False)
        elif output is not None:
            _write(answer, output, format_)
            screen.err.print(f"{answer.count:,} rows are in {output}", markup=False)
        elif format_ == "table":
            show(query.name, answer)
        else:
            _print(answer, format_)


def show(title: str, answer: Answer) -> None:
    """Print an answer as a table."""
    rows = [[_cell(value) for value in row] for row in answer.rows(ROWS_SHOWN)]
    numbers = tuple(n for n, type_ in enumerate(answer.types) if type_ in _NUMBERS or type_.startswith("DECIMAL"))
    screen.table(title, answer.columns, rows, right=numbers)
    if answer.count > len(rows):
        screen.err.print(
            f"{answer.count - len(rows):,} more rows are not shown. Next: --output FILE.csv writes them all",
            markup=False,
        )


_NUMBERS: Final = {"BIGINT", "INTEGER", "DOUBLE", "FLOAT", "SMALLINT", "TINYINT"}


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # an id with its thousands separated is no id
    return value if value is None else str(value)


def _format(format_: str | None, output: Path | None) -> str:
    if format_ is None:
        suffix = output.suffix.removeprefix(".") if output else "table"
        if suffix not in FORMATS:
            raise Refused(f"{output}: give --format {', '.join(FORMATS[1:])}, or a name that ends in one of them")
        return suffix
    if format_ == "parquet" and output is None:
        raise Refused("Parquet is not for a screen: name a file with --output")
    if format_ == "table" and output is not None:
        raise Refused("a table is for a screen: leave out --output, or give --format csv, json or parquet")
    return format_


def _write(answer: Answer, output: Path, format_: str) -> None:
    if not output.absolute().parent.is_dir():
        raise Refused(f"--output {output}: there is no such folder")
    answer.write(output, format_)


def _print(answer: Answer, format_: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=f".{format_}") as file:
        answer.write(Path(file.name), format_)
        with Path(file.name).open("rb") as written:
            shutil.copyfileobj(written, sys.stdout.buffer)
    sys.stdout.flush()


@contextmanager
def _progress(lake: LocalLake) -> Iterator[None]:
    """Say how far a long query is, on a terminal."""
    if not screen.err.is_terminal:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        with screen.err.status("asking the lake") as status:
            while not done.wait(0.5):
                share = lake.connection.query_progress()
                status.update("asking the lake" if share < 0 else f"asking the lake: {share:.0f} %")

    watcher = threading.Thread(target=watch, daemon=True, name="progress")
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
