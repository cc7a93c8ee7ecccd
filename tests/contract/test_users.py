"""What the users table promises, on SQLite and on a real MariaDB."""

import os
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from clickstream.errors import ClickstreamError, Refused, Unavailable
from connectors.customers import Customer, customers_in
from connectors.redis_door import RedisDoor
from connectors.testing import InMemoryNames
from connectors.users import NameStore, Synced, Users, sync_names
from tests.servers import MariaDb, make_certificate

HOSTILE = [
    "'; DROP TABLE customers; --",
    "1 OR 1=1",
    '" OR ""="',
    "\\",
    "%",
    "%s",
    "%(name)s",
    ":name",
    "_",
    "NULL",
    "a\nb",
    "a\tb",
    "a\x00b",
    "`",
    "/*",
    "#",
]
NAMES = [
    "O'Neill",
    "Иван Щукин",
    "佐藤 美咲",
    "👩🏽‍🚀",
    "Zoë",
    "é",
    "é",
    "ليلى",
    "Robert'); DROP TABLE customers;--",
    " ",
]


Kept = Callable[[], dict[str, str]]


def customer(customer_id: str, name: str = "Ada", pixel_id: str = "wjgao4w1oi", price: str = "0.25") -> Customer:
    return Customer(customer_id, pixel_id, name, Decimal(price))


@pytest.fixture(params=["sqlite", "mariadb"])
def users(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Users]:
    """The table, empty."""
    if request.param == "sqlite":
        with Users(f"sqlite:///{tmp_path / 'users.db'}") as door:
            door.create()
            yield door
    else:
        server: MariaDb = request.getfixturevalue("mariadb")
        with Users(server.url, password=server.password, tls_ca=server.ca) as door:
            door.create()
            server.execute("DELETE FROM clickstream.customers")
            yield door


# The table


def test_it_is_created_once(users: Users) -> None:
    users.load([customer("35")])

    users.create()

    assert users.name("35") == "Ada"


def test_loading_twice_leaves_the_newer_name(users: Users) -> None:
    users.load([customer("35", "Ada"), customer("36", "Grace")])

    loaded = users.load([customer("35", "Ada Lovelace"), customer("36", "Grace")])

    assert loaded == 2
    assert list(users.names()) == [("35", "Ada Lovelace"), ("36", "Grace")]


def test_of_a_customer_twice_in_one_load_the_last_one_counts(users: Users) -> None:
    users.load([customer("35", "Ada"), customer("35", "Grace")])

    assert list(users.names()) == [("35", "Grace")]


def test_loading_nobody_is_nothing(users: Users) -> None:
    assert users.load([]) == 0
    assert list(users.names()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_as_it_was(users: Users, name: str) -> None:
    users.load([customer("35", name)])

    assert users.name("35") == name


def test_what_looks_like_sql_is_an_id_like_any_other(users: Users) -> None:
    users.load(customer(hostile, name=hostile, pixel_id=hostile) for hostile in HOSTILE)

    assert dict(users.names()) == {hostile: hostile for hostile in HOSTILE}
    assert [users.name(hostile) for hostile in HOSTILE] == HOSTILE
    assert [after for hostile in HOSTILE for after, _ in users.names(after=hostile) if after <= hostile] == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=128).filter(str.strip), st.just("Ada"))
)
@example({"a": "", "A": "", "á": "", "ａ": "", "ss": "", "ß": "", "𝒶": ""})
def test_ids_are_the_same_only_if_they_are_equal(users: Users, ids: dict[str, str]) -> None:
    wanted = {user_id.strip(): f"name of {number}" for number, user_id in enumerate(ids)}

    users.load(customer(user_id, name) for user_id, name in wanted.items())

    assert {user_id: users.name(user_id) for user_id in wanted} == wanted


@pytest.mark.parametrize("stranger", ["7", "", "35 ", " 35", "3", "%", "35\x00", "x" * 1000, "\ud800", "' OR '1'='1"])
def test_somebody_unknown_has_no_name(users: Users, stranger: str) -> None:
    users.load([customer("35")])

    assert users.name(stranger) is None


@pytest.mark.parametrize("count", [0, 1, 3, 6, 7, 10])
def test_names_come_in_order_and_once_over_pages(users: Users, count: int) -> None:
    ids = [f"{number:02}" for number in range(count)]
    users.load(customer(user_id, f"name {user_id}") for user_id in reversed(ids))

    assert list(users.names(batch=3)) == [(user_id, f"name {user_id}") for user_id in ids]
    assert [user_id for user_id, _ in users.names(after="04", batch=3)] == ids[5:]


def test_more_are_loaded_than_go_in_one_trip(users: Users) -> None:
    assert users.load(customer(f"{number:05}") for number in range(1234)) == 1234
    assert len({user_id for user_id, _ in users.names(batch=500)}) == 1234


def test_a_page_is_read_when_it_is_needed(users: Users) -> None:
    users.load(customer(f"{number}") for number in range(9))
    names = users.names(batch=3)

    first = [next(names) for _ in range(3)]
    users.load([customer("5", "Grace")])

    assert [user_id for user_id, _ in first] == ["0", "1", "2"]
    assert dict(names)["5"] == "Grace"


def test_the_widest_customer_fits(users: Users) -> None:
    widest = customer("👩" * 128, "👩" * 255, "👩" * 128, "99999999.9999")

    users.load([widest])

    assert list(users.names()) == [("👩" * 128, "👩" * 255)]


def test_what_was_loaded_before_an_error_stays(users: Users) -> None:
    def until_a_bad_one() -> Iterator[Customer]:
        yield from (customer(f"{number:03}") for number in range(600))
        raise Refused("line 602")

    with pytest.raises(Refused, match="line 602"):
        users.load(until_a_bad_one())

    assert len(list(users.names())) == 500


# The copy


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> NameStore:
    if request.param == "memory":
        return InMemoryNames()
    return RedisDoor(request.getfixturevalue("redis"))


@pytest.fixture
def kept(store: NameStore, request: pytest.FixtureRequest) -> Kept:
    """Tell all that is in the store."""
    if isinstance(store, InMemoryNames):
        return lambda: store.names
    client: Redis = request.getfixturevalue("redis")
    return lambda: {
        key.decode().removeprefix("user:"): client.hget(key, "name").decode()  # type: ignore[union-attr]
        for key in client.scan_iter("user:*")
    }


def test_everybodys_name_is_copied_and_copying_again_is_harmless(users: Users, store: NameStore, kept: Kept) -> None:
    wanted = {f"{number:04}": f"name of {number} 👩" for number in range(2500)}
    users.load(customer(user_id, name) for user_id, name in wanted.items())

    assert sync_names(users, store) == Synced(2500)
    assert sync_names(users, store) == Synced(2500)
    assert kept() == wanted


def test_only_the_one_who_signed_up_is_copied(users: Users, store: NameStore, kept: Kept) -> None:
    users.load([customer("35", "Ada"), customer("36", "Grace")])

    assert sync_names(users, store, only="36") == Synced(1)
    assert kept() == {"36": "Grace"}


def test_to_sign_up_without_being_in_the_table_is_told_and_changes_nothing(
    users: Users, store: NameStore, kept: Kept
) -> None:
    store.write_names([("37", "Barbara")])

    assert sync_names(users, store, only="37") == Synced(0, unknown="37")
    assert kept() == {"37": "Barbara"}


def test_a_new_name_replaces_the_old_one(users: Users, store: NameStore, kept: Kept) -> None:
    users.load([customer("35", "Ada Byron")])
    sync_names(users, store)
    users.load([customer("35", "Ada Lovelace")])

    sync_names(users, store, only="35")

    assert kept() == {"35": "Ada Lovelace"}


# Trouble


def told(error: pytest.ExceptionInfo[ClickstreamError]) -> str:
    """What an error says in a log, its causes included."""
    chain: traceback.TracebackException | None = traceback.TracebackException.from_exception(error.value)
    said: list[str] = []
    while chain is not None:
        said += chain.format_exception_only()
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "".join(said) + repr(error.value)


def test_a_missing_table_is_refused_with_the_next_step(
    users: Users, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if "sqlite" in users.location:
        users = Users(f"sqlite:///{tmp_path / 'empty.db'}")
    else:
        request.getfixturevalue("mariadb").execute("DROP TABLE clickstream.customers")

    for attempt in (lambda: list(users.names()), lambda: users.name("35"), lambda: users.load([customer("35")])):
        with pytest.raises(Refused, match=r"(?s)customers.*Next: create the table"):
            attempt()


def test_a_row_that_the_table_refuses_is_not_repeated(mariadb: MariaDb) -> None:
    mariadb.execute("CREATE OR REPLACE DATABASE narrow", "GRANT ALL ON narrow.* TO app@127.0.0.1")
    users = Users(mariadb.url.replace("/clickstream", "/narrow"), password=mariadb.password)
    users.create()
    mariadb.execute("ALTER TABLE narrow.customers MODIFY name VARCHAR(5) NOT NULL")

    with pytest.raises(Refused, match="Next: compare the table") as error:
        users.load([customer("geheim-id", "geheim-name")])

    assert "geheim" not in told(error)


def test_a_wrong_password_is_refused_and_not_repeated(mariadb: MariaDb) -> None:
    users = Users(mariadb.url, password="geheim-€")

    with pytest.raises(Refused, match=r"1045.*Next: check user and password") as error:
        users.name("35")

    assert "geheim" not in told(error) + repr(users) + repr(vars(users))


def test_a_user_without_rights_is_refused(mariadb: MariaDb) -> None:
    mariadb.execute(
        "CREATE OR REPLACE USER reader@127.0.0.1 IDENTIFIED BY 'sees nothing'",
        "GRANT CREATE ON clickstream.* TO reader@127.0.0.1",
    )
    users = Users(mariadb.url.replace("app@", "reader@"), password="sees nothing")
    users.create()

    with pytest.raises(Refused, match=r"1142.*GRANT SELECT"):
        users.name("35")


def test_an_unknown_database_is_refused(mariadb: MariaDb) -> None:
    mariadb.execute("GRANT ALL ON elsewhere.* TO app@127.0.0.1")
    users = Users(mariadb.url.replace("/clickstream", "/elsewhere"), password=mariadb.password)

    with pytest.raises(Refused, match=r"1049.*which database the URL names"):
        users.create()


def test_a_server_that_goes_away_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    with MariaDb(tmp_path / "server") as server, Users(server.url, password=server.password) as users:
        users.create()
        users.load([customer("35")])

        server.stop()
        for answer in ("Lost connection", "Can't connect"):
            with pytest.raises(Unavailable, match=rf"{answer}.*try again") as error:
                users.name("35")
            assert server.password not in told(error)

        server.start()
        assert users.name("35") == "Ada"


def test_a_server_that_says_nothing_is_unavailable_in_time(mariadb: MariaDb) -> None:
    with Users(mariadb.url, password=mariadb.password, timeout=0.3) as users:
        users.create()
        try:
            os.kill(mariadb.pid, signal.SIGSTOP)
            for _ in range(2):  # over a connection that was open, and over a new one
                started = time.monotonic()
                with pytest.raises(Unavailable, match=r"timed out.*try again"):
                    users.name("35")
                assert time.monotonic() - started < 10
        finally:
            os.kill(mariadb.pid, signal.SIGCONT)

        assert users.name("35") is None


def test_a_locked_sqlite_file_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "users.db"
    with Users(f"sqlite:///{file}", timeout=0.1) as users:
        users.create()
        other = sqlite3.connect(file)
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(Unavailable, match=r"locked.*try again"):
            users.load([customer("35")])
        other.close()


def test_a_sqlite_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "not.db").write_bytes(b"this is something else " * 100)

    for nowhere in (tmp_path / "no" / "folder.db", tmp_path):
        with pytest.raises(Refused, match="Next: create the folder"):
            Users(f"sqlite:///{nowhere}").create()
    with pytest.raises(Refused, match=r"NOTADB.*Next: correct the path"):
        Users(f"sqlite:///{tmp_path / 'not.db'}").create()


# TLS and the URL


def test_with_a_ca_the_connection_is_encrypted(mariadb: MariaDb) -> None:
    mariadb.execute(
        "CREATE OR REPLACE USER careful@127.0.0.1 IDENTIFIED BY 'secret' REQUIRE SSL",
        "GRANT ALL ON clickstream.* TO careful@127.0.0.1",
    )
    users = Users(mariadb.url.replace("app@", "careful@"), password="secret", tls_ca=mariadb.ca)

    users.create()


def test_a_server_that_the_ca_does_not_know_is_refused(mariadb: MariaDb, tmp_path: Path) -> None:
    make_certificate(tmp_path / "other.pem", tmp_path / "other.key")
    users = Users(mariadb.url, password=mariadb.password, tls_ca=tmp_path / "other.pem")

    with pytest.raises(Refused, match=r"CERTIFICATE_VERIFY_FAILED.*Next: check that the CA file"):
        users.create()


def test_a_certificate_for_another_host_is_refused(mariadb: MariaDb) -> None:
    users = Users(mariadb.url.replace("127.0.0.1", "localhost"), password=mariadb.password, tls_ca=mariadb.ca)

    with pytest.raises(Refused, match=r"CERTIFICATE_VERIFY_FAILED.*has the host it vouches for"):
        users.create()


def test_with_a_ca_nothing_is_sent_to_a_server_without_tls(tmp_path: Path, mariadb: MariaDb) -> None:
    with MariaDb(tmp_path / "plain", tls=False) as server:
        users = Users(server.url, password=server.password, tls_ca=mariadb.ca)

        with pytest.raises(Refused, match=r"Next: turn on TLS"):
            users.create()


@pytest.mark.parametrize("host", ["db.example.com", "10.0.0.7", "[2001:db8::7]", "localhost.example.com"])
def test_mysql_on_another_machine_needs_tls(host: str) -> None:
    with pytest.raises(Refused, match=r"needs TLS"):
        Users(f"mysql://app@{host}/clickstream", password="secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", ""])
def test_mysql_on_this_machine_does_not(host: str) -> None:
    Users(f"mysql://app@{host}/clickstream", password="secret")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://app:geheim@127.0.0.1/db", "has a password in it"),
        ("mysql://app:@127.0.0.1/db", "has a password in it"),
        ("mysql://app@db.example.com/db?ssl_disabled=geheim", r"has options in it \(ssl_disabled\)"),
        ("mysql://app@127.0.0.1/db?host=geheim.example.com", "has options in it"),
        ("mysql://app@127.0.0.1:geheim/db", "cannot be read"),
        ("mysql://app@127.0.0.1", "neither a MySQL database nor"),
        ("postgresql://app@127.0.0.1/geheim", "neither a MySQL database nor"),
        ("mysql+mysqldb://app@127.0.0.1/geheim", "neither a MySQL database nor"),
        ("geheim", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_url_that_will_not_do_is_refused_without_repeating_it(url: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as error:
        Users(url)

    assert "geheim" not in told(error)
    assert "Next: write one such as" in str(error.value)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")

    for file in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(Refused, match="cannot read the CA file"):
            Users("mysql://app@db.example.com/db", tls_ca=file)


# Customers in CSV


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "customers.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


HEADER = "customer_id,pixel_id,name,price_per_click\n"


def test_a_csv_file_is_read_as_it_is_meant(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "\ufeffname,customer_id,price_per_click,pixel_id\r\n"
        '"O\'Neill, ""Jo""",35,0.25,wjgao4w1oi\r\n'
        "\r\n"
        '"two\nlines",36,12,p\n'
        "佐藤 美咲,37,0.0001,p",
    )

    assert list(customers_in(file)) == [
        customer("35", 'O\'Neill, "Jo"'),
        customer("36", "two\nlines", "p", "12"),
        customer("37", "佐藤 美咲", "p", "0.0001"),
    ]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",geheim,Ada,0.25", "customer_id has 0 characters"),
        (f"{'x' * 129},geheim,Ada,0.25", "customer_id has 129 characters, 1 to 128 fit"),
        ("geheim ,p,Ada,0.25", "customer_id begins or ends with white space"),
        ("geheim,,Ada,0.25", "pixel_id has 0 characters"),
        (f"geheim,p,{'x' * 256},0.25", "name has 256 characters, 1 to 255 fit"),
        ("geheim,p,Ada,geheim", "price_per_click is not a price"),
        ("geheim,p,Ada,0.12345", "price_per_click is not a price"),
        ("geheim,p,Ada,123456789", "price_per_click is not a price"),
        *(
            (f"geheim,p,Ada,{price}", "price_per_click is not a price")
            for price in ("", "-1", "NaN", "1e3", "1_0", "\uff11")
        ),
        ("geheim,p,Ada", "has 3 columns instead of 4, price_per_click is missing"),
        ("geheim,p,Ada,0.25,geheim", "has 5 columns instead of 4"),
        ('"geheim,p,Ada,0.25', r"is not CSV \(unexpected end of data\)"),
        ('"geheim"x,p,Ada,0.25', "is not CSV"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_column_and_not_repeated(tmp_path: Path, row: str, why: str) -> None:
    file = written(tmp_path, HEADER + '34,p,"two\nlines",0.25\n' + row)
    customers = customers_in(file)
    next(customers)

    with pytest.raises(Refused, match=rf"customers\.csv, line 4: {why}") as error:
        next(customers)

    assert "geheim" not in told(error)


def test_what_is_not_utf8_is_refused_by_line(tmp_path: Path) -> None:
    file = written(tmp_path, HEADER.encode() + b"34,p,Ada,0.25\n35,p,geheim \xe9\n")

    with pytest.raises(Refused, match="line 3: is not UTF-8") as error:
        list(customers_in(file))

    assert "geheim" not in told(error)


@pytest.mark.parametrize("text", ["", "customer_id,pixel_id,name\n", "35,p,Ada,0.25\n", HEADER.replace("name", "naem")])
def test_a_file_without_the_header_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused, match="line 1: does not name the columns customer_id,pixel_id,name,price_per_click"):
        list(customers_in(written(tmp_path, text)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"No such file.*Next: check the path"):
        list(customers_in(tmp_path / "missing.csv"))
