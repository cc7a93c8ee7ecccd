"""The door to the users table, in MySQL or, on a laptop, SQLite, and the copy of its names for the job."""

import ipaddress
import sqlite3
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, Self

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Insert,
    MetaData,
    Numeric,
    String,
    Table,
    create_engine,
    delete,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.schema import CreateTable

from clickstream.errors import ClickstreamError, Refused, Unavailable
from connectors.customers import PRICE_DIGITS, PRICE_PLACES, WIDTHS, Customer, is_text

CONNECT_SECONDS: Final = 5
IDLE_SECONDS: Final = 60  # after which a connection is made anew; a Lambda may have slept over it
ROWS_A_TRIP: Final = 500

_MYSQL: Final = {"mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"}
_SQLITE: Final = {"sqlite", "sqlite+pysqlite"}

# With utf8mb4_bin an id equals itself only; MySQL's usual collations take "a", "A" and "á" for the same customer.
_customers: Final = Table(
    "customers",
    MetaData(),
    *(Column(name, String(width), primary_key=name == "customer_id", nullable=False) for name, width in WIDTHS.items()),
    Column("price_per_click", Numeric(PRICE_DIGITS, PRICE_PLACES), nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)
_id: Final = _customers.c.customer_id
_ID_AND_NAME: Final = select(_id, _customers.c.name)

_WAIT: Final = "see whether it is up and reachable from here, and try again"
_GRANT: Final = (
    "check user and password, and GRANT SELECT on customers, INSERT and UPDATE too where it is loaded, "
    "DELETE where users are erased"
)
_CREATE: Final = "create the table and load it, or check which database the URL names"
_TLS: Final = (
    "check that the CA file is that of this server (Aurora's is "
    "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem), and that the URL has the host it vouches for"
)
_LOOK: Final = f"compare the table with what is expected, {', '.join(column.name for column in _customers.columns)}"

# https://mariadb.com/kb/en/mariadb-error-code-reference/, https://dev.mysql.com/doc/mysql-errors/8.0/en/
_PASSING: Final = {
    *(2002, 2003, 2006, 2013),  # cannot connect, or no more
    *(1040, 1203),  # too many connections
    *(1053, 1927),  # shutting down
    *(1205, 1213),  # lock wait timeout, deadlock
    *(1290, 1836),  # read-only, as in the minute of a failover
    *("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"),
}
_NEXT: Final[dict[int | str, str]] = {
    **dict.fromkeys((1044, 1045, 1142, 1143, 1698), _GRANT),
    **dict.fromkeys((1049, 1146, "SQLITE_ERROR"), _CREATE),
    2026: "turn on TLS at the server; nothing is sent without it",
    "SQLITE_CANTOPEN": "create the folder the file is in, or correct the path",
    "SQLITE_READONLY": "make the file and its folder writable",
    "SQLITE_NOTADB": "correct the path, or move that file away",
}


class Users:
    """The table `customers`: who has signed up, and under which name.

    Loading a row twice leaves one row, so whatever was interrupted is simply done again. A server that cannot be
    reached for 5 seconds, or says nothing for `timeout` seconds, is `Unavailable`; a missing table, a wrong password
    or a certificate that does not fit is `Refused`. Neither says anything of a customer or of the password.

    The URL is `mysql://user@host/database` or `sqlite:///file.db`, without the password, which comes by itself.
    A MySQL on another machine is spoken to only by TLS, verified against `tls_ca`, a file of PEM certificates.
    """

    def __init__(
        self, url: str, *, password: str | None = None, tls_ca: str | Path | None = None, timeout: float = 30.0
    ) -> None:
        checked = _checked(url)
        self.location = checked.render_as_string()
        options: dict[str, Any] = {"timeout": timeout}
        self._upsert: Insert = _upsert_sqlite()
        if checked.drivername == "mysql+pymysql":
            options = _mysql_options(checked, password, tls_ca, timeout)
            self._upsert = _upsert_mysql()
        self._engine = create_engine(checked, hide_parameters=True, pool_recycle=IDLE_SECONDS, connect_args=options)

    def __repr__(self) -> str:
        return f"Users({self.location!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self) -> None:
        """Create the table; one that exists is left as it is."""
        with self._asking("creating the table customers") as connection:
            connection.execute(CreateTable(_customers, if_not_exists=True))

    def load(self, customers: Iterable[Customer]) -> int:
        """Insert customers, or replace those with the same id; return how many.

        Each 500 are committed together: after an error those before it are in, and loading all again is harmless.
        """
        loaded, rest = 0, iter(customers)
        while some := [asdict(customer) for customer in islice(rest, ROWS_A_TRIP)]:
            with self._asking("loading customers") as connection:
                connection.execute(self._upsert, some)
            loaded += len(some)
        return loaded

    def names(self, after: str | None = None, batch: int = 1000) -> Iterator[tuple[str, str]]:
        """Yield every user's id and name in the order of ids, those after the id `after`; one batch is in memory.

        Each batch is read by itself, so no transaction stays open; a row written meanwhile may be there or not.
        """
        while True:
            query = _ID_AND_NAME.order_by(_id).limit(batch)
            with self._asking("reading names") as connection:
                rows = connection.execute(query if after is None else query.where(_id > after)).all()
            yield from ((user_id, name) for user_id, name in rows)
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def customers(self, batch: int = 1000) -> Iterator[Mapping[str, Any]]:
        """Yield every row by its columns, in the order of ids; one batch is in memory, no transaction stays open."""
        after: str | None = None
        while True:
            query = select(_customers).order_by(_id).limit(batch)
            with self._asking("reading customers") as connection:
                rows = connection.execute(query if after is None else query.where(_id > after)).all()
            yield from (dict(row._mapping) for row in rows)
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def name(self, user_id: str) -> str | None:
        """Return a user's name, None if there is no such user."""
        if not is_text(user_id):
            return None
        with self._asking("reading a name") as connection:
            row = connection.execute(_ID_AND_NAME.where(_id == user_id)).first()
        if row is None or row[0] != user_id:  # MySQL takes "7 " for "7"
            return None
        return str(row[1])

    def row(self, user_id: str) -> dict[str, Any] | None:
        """Return all that is kept of a user, None if there is no such user."""
        if not is_text(user_id):
            return None
        with self._asking("reading a customer") as connection:
            row = connection.execute(select(_customers).where(_id == user_id)).mappings().first()
        return None if row is None or row["customer_id"] != user_id else dict(row)

    def remove(self, user_id: str) -> bool:
        """Remove a user; return whether there was one. Removing one again changes nothing."""
        if self.row(user_id) is None:
            return False
        with self._asking("removing a customer") as connection:
            if connection.dialect.name == "sqlite":
                connection.execute(text("PRAGMA secure_delete = ON"))  # else the row stays in the file, unlisted
            connection.execute(delete(_customers).where(_id == user_id))
        return True

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _asking(self, what: str) -> Iterator[Connection]:
        """Run one transaction; trouble with it is one of ours, without the rows that SQLAlchemy's would show."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explained(what, error) from None

    def _explained(self, what: str, error: DBAPIError) -> ClickstreamError:
        cause = error.orig
        code = cause.args[0] if cause else 0
        if isinstance(cause, sqlite3.Error):
            code = "_".join(cause.sqlite_errorname.split("_")[:2])  # SQLITE_BUSY of SQLITE_BUSY_SNAPSHOT
        tells_no_data = isinstance(error, (OperationalError, ProgrammingError))
        answer = str(cause) if tells_no_data else f"error {code}"
        trouble = f"{what} in {self.location} failed: {answer}. Next: "
        if isinstance(getattr(cause, "original_exception", None), ssl.SSLCertVerificationError):
            return Refused(trouble + _TLS)
        if code in _PASSING:
            return Unavailable(trouble + _WAIT)
        return Refused(trouble + _NEXT.get(code, _LOOK))


class NameStore(Protocol):
    """Where the job looks names up."""

    def write_names(self, names: Iterable[tuple[str, str]], /) -> int:
        """Keep these names by user id, replacing older ones; return how many. Twice is harmless."""


@dataclass(frozen=True, slots=True)
class Synced:
    """How many names were copied; `unknown` is the user who was asked for and is not in the table."""

    copied: int
    unknown: str | None = None


def sync_names(users: Users, store: NameStore, only: str | None = None) -> Synced:
    """Copy names to where the job looks them up: everybody's, or only that of one user who has just signed up.

    Doing it again is harmless, and after an interruption it is the thing to do. A user gone from the table keeps
    the copied name, as events of theirs may still be under way; a store built anew has it no longer. A name changed
    while everybody's are copied may be overwritten with the older one until the next time.
    """
    if only is None:
        return Synced(store.write_names(users.names()))
    name = users.name(only)
    return Synced(0, unknown=only) if name is None else Synced(store.write_names([(only, name)]))


def _checked(url: str) -> URL:
    """Parse a URL; whatever is wrong with it is told without repeating it."""
    example = "Next: write one such as sqlite:///.data/users.db or mysql://user@host:3306/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise Refused(f"the users' URL cannot be read. {example}") from None
    if parsed.password is not None:
        raise Refused(f"the users' URL has a password in it, which belongs in a secret. {example}")
    if parsed.query:
        raise Refused(f"the users' URL has options in it ({', '.join(parsed.query)}), it takes none. {example}")
    if parsed.drivername in _SQLITE:
        return parsed
    if parsed.drivername in _MYSQL and parsed.database:
        return parsed.set(drivername="mysql+pymysql", host=parsed.host or "127.0.0.1")
    raise Refused(f"the users' URL names neither a MySQL database nor a SQLite file. {example}")


def _mysql_options(url: URL, password: str | None, tls_ca: str | Path | None, timeout: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": timeout,
        "write_timeout": timeout,
    }
    if password is not None:
        options["password"] = password.encode()  # PyMySQL would make it Latin-1
    if tls_ca is not None:
        try:
            ssl.create_default_context(cafile=tls_ca)
        except OSError as error:
            raise Refused(f"cannot read the CA file {tls_ca} ({error.strerror or error}). Next: {_TLS}") from None
        # as arguments: PyMySQL does not verify without them, and in SQLAlchemy's URL one of them drops the others
        options |= {"ssl_ca": str(tls_ca), "ssl_verify_cert": True, "ssl_verify_identity": True}
    elif not _is_loopback(url.host or ""):
        raise Refused(f"MySQL on {url.host} needs TLS, and no CA file is given to verify it by. Next: {_TLS}")
    return options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _upsert_mysql() -> mysql.Insert:
    insert = mysql.insert(_customers)
    return insert.on_duplicate_key_update({c.name: insert.inserted[c.name] for c in _customers.c if c is not _id})


def _upsert_sqlite() -> sqlite.Insert:
    insert = sqlite.insert(_customers)
    new = {c.name: insert.excluded[c.name] for c in _customers.c if c is not _id}
    return insert.on_conflict_do_update(index_elements=[_id], set_=new)
