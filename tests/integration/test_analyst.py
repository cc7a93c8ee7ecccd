"""What an analyst types, and what they then see."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from redis import Redis

from cli.main import main
from cli.servers import PROJECT, RedisServer
from connectors.customers import Customer
from connectors.lake import Lake
from connectors.users import Users
from tests.lakes import write_enriched
from tests.servers import MariaDb, S3Server
from tests.unit.test_queries import ANSWERS, hand_events


class Done(NamedTuple):
    """What a command has printed."""

    stdout: str
    stderr: str


@pytest.fixture
def clickstream(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in this process, which spares each of them the seconds that Python needs to start."""

    def run(*arguments: str | Path, code: int = 0, stdin: str = "", **environment: str) -> Done:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["clickstream", *map(str, arguments)])
            patched.setattr(sys, "stdin", io.StringIO(stdin))
            for name, value in environment.items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, f"exit {ended.value.code}\n{out[-3000:]}\n{err[-3000:]}"
        return Done(out, err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind: a lake, the users, and a Redis that is no longer running."""
    folder = tmp_path_factory.mktemp("analyst")
    write_enriched(folder / "lake", hand_events())
    with Users(f"sqlite:///{folder}/users.db") as users:
        users.create()
        users.load([Customer("ada", "p", "Ada", Decimal("0.25")), Customer("cyd", "q", "Cyd", Decimal("1.5"))])
    with RedisServer(folder / "redis", durable=True, fresh=True) as server, server.client() as client:
        fill(client)
    return folder


def fill(client: "Redis") -> None:
    paris = {"last_access": "2026-01-13 09:00:00.000000", "location": "Paris, Île-de-France, FR"}
    client.hset("user:ada", mapping=paris)
    client.hset("user:bob", mapping={"last_access": "2026-01-19 08:00:00.000000", "location": "unknown"})
    client.set("ip:1.1.1.1", "no user")


def report(done: Any) -> list[dict[str, Any]]:
    return list(json.loads(done.stdout))


def test_the_federated_report_joins_what_the_last_run_left_and_leaves_it_alone(folder: Path, clickstream: Any) -> None:
    before = (folder / "redis" / "appendonly.aof").read_bytes()

    rows = report(clickstream("query", "federated-report", "--folder", folder, "--format", "json"))

    _, expected = ANSWERS["federated_report"]
    columns = ("user_id", "product_id", "last_access", "location", "price_per_click")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        (row[0], row[2], row[6], row[7], None if row[8] is None else pytest.approx(float(row[8]))) for row in expected
    ]
    assert (folder / "redis" / "appendonly.aof").read_bytes() == before
    assert not list(folder.glob("query-*"))


def test_a_redis_and_a_mysql_that_are_running_are_joined_too(
    folder: Path, redis: "Redis", redis_server: RedisServer, mariadb: MariaDb, clickstream: Any
) -> None:
    fill(redis)
    redis.hset("user:eve", "location", "Oslo, Oslo, NO")
    with Users(mariadb.url, password=mariadb.password, tls_ca=mariadb.ca) as users:
        users.create()
    mariadb.execute(f"REPLACE INTO {mariadb.database}.customers VALUES ('eve', 'p', 'Eve', 3.5)")

    done = clickstream(
        *("query", "federated_report", "--folder", folder, "--format", "json", "--redis", redis_server.url),
        *("--database", mariadb.url, "--database-ca", mariadb.ca, "--database-password", "env:PASSWORD"),
        PASSWORD=mariadb.password,
    )

    eve = next(row for row in report(done) if row["user_id"] == "eve")
    assert (eve["location"], eve["price_per_click"]) == ("Oslo, Oslo, NO", 3.5)


def test_only_a_query_that_joins_them_misses_redis_and_the_users(tmp_path: Path, clickstream: Any) -> None:
    write_enriched(tmp_path / "lake", hand_events())

    assert "Search" in clickstream("query", "events-per-name", "--folder", tmp_path).stdout
    assert "clickstream run" in clickstream("query", "federated-report", "--folder", tmp_path, code=1).stderr


def test_csv_goes_to_the_standard_output(folder: Path, clickstream: Any) -> None:
    done = clickstream("query", "sessions", "--folder", folder, "--format", "csv")

    columns, rows = ANSWERS["sessions"]
    written = list(csv.reader(io.StringIO(done.stdout)))
    assert written[0] == columns
    assert [row[:2] for row in written[1:]] == [[str(row[0]), str(row[1])] for row in rows]


def test_an_answer_is_written_in_the_format_of_the_files_name(folder: Path, tmp_path: Path, clickstream: Any) -> None:
    for suffix in ("csv", "json", "parquet"):
        file = tmp_path / f"answer.{suffix}"
        said = clickstream("query", "count-by-event-name", "--folder", folder, "--output", file).stderr
        assert said == f"4 rows are in {file}\n"
        assert duckdb.sql(f"FROM '{file}'").fetchall() == ANSWERS["count_by_event_name"][1]


def test_sql_comes_from_a_file_or_the_standard_input_too(folder: Path, tmp_path: Path, clickstream: Any) -> None:
    (tmp_path / "redshift").mkdir()
    mine = tmp_path / "redshift" / "mine.sql"
    mine.write_text("SELECT datediff(hour, '2026-01-01 00:59', '2026-01-01 01:01') AS hours")
    mean = "SELECT count(*) / 4 AS quarter, avg(price) AS mean FROM flattened"

    from_stdin = clickstream("query", "-", "--folder", folder, "--format", "json", stdin=mean)

    assert report(from_stdin) == [{"quarter": 5, "mean": pytest.approx(258.25 / 22)}]
    assert report(clickstream("query", mine, "--folder", folder, "--format", "json")) == [{"hours": 1}]
    in_athena = clickstream("query", mine, "--folder", folder, "--format", "json", "--dialect", "athena", code=1)
    assert "error: " in in_athena.stderr


def test_what_is_unloaded_can_be_loaded_back(folder: Path, clickstream: Any) -> None:
    said = clickstream("query", "unload-by-country-and-event-name", "--folder", folder).stderr
    loaded = clickstream("query", "load-by-country-and-event-name", "--folder", folder, "--format", "json")

    assert f"13 rows are in {folder}/lake/unloads/by_country_and_event_name/events_000.csv" in said
    assert [tuple(row.values()) for row in report(loaded)] == ANSWERS["load_by_country_and_event_name"][1]


def test_a_lake_in_s3_answers_as_one_in_a_folder(tmp_path: Path, s3_server: S3Server, clickstream: Any) -> None:
    local = write_enriched(tmp_path / "lake", hand_events())
    s3 = s3_server.client()
    s3.create_bucket(Bucket="analyst")
    for file in local.files("enriched"):
        key = Path(file.path).relative_to(tmp_path / "lake").as_posix()
        s3.upload_file(file.path, "analyst", f"below/{key}")
    s3.put_object(Bucket="analyst", Key="below/enriched/year=2026/month=01/day=05/hour=10/_half", Body=b"not Parquet")
    s3.close()
    keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    where = ("--lake", "s3://analyst/below", "--lake-endpoint", s3_server.endpoint, "--folder", tmp_path / "data")

    answer = clickstream("query", "events-per-name", *where, "--format", "json", **keys)
    unloaded = clickstream("query", "unload-by-country-and-event-name", *where, **keys)

    assert [tuple(row.values()) for row in report(answer)] == ANSWERS["events_per_name"][1]
    assert f"13 rows are in {tmp_path}/data/s3/analyst/below/unloads/" in unloaded.stderr


def test_without_a_name_all_queries_are_listed_with_what_they_answer(clickstream: Any) -> None:
    listed = " ".join(clickstream("query").stdout.split())

    for name in ANSWERS:
        assert name in listed
    assert "activity_by_hour Events, users and purchases by hour of the day" in listed


def test_a_reader_who_has_seen_enough_ends_it(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m cli.main query sessions --folder {folder} --format csv | head -n 1",
        shell=True,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.startswith("day,")
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_long_query_and_leaves_nothing_behind(folder: Path) -> None:
    numbers = "UNNEST(sequence(1, 9000000))"
    endless = f"SELECT sum(a.i * b.i) FROM {numbers} AS a (i) CROSS JOIN {numbers} AS b (i)"
    query = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "query", "-", "--folder", str(folder)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert query.stdin is not None
    query.stdin.write(endless)
    query.stdin.close()
    query.stdin = None
    deadline = time.monotonic() + 60
    while not list(folder.glob("query-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    for _ in range(4):  # the first may come while Python is not listening
        query.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            _, said = query.communicate(timeout=30)
            break

    assert (query.returncode, said) == (130, "")
    assert not list(folder.glob("query-*"))


ERRORS: Mapping[str, tuple[list[str], str]] = {
    "no such query": (["query", "no-such"], "lists the names"),
    "a day that is none": (["query", "funnel", "--since", "2026-02-30"], "2026-11-23"),
    "a day without hyphens": (["query", "funnel", "--until", "20260228"], "2026-11-23"),
    "Parquet for a screen": (["query", "funnel", "--format", "parquet"], "--output"),
    "a file of unknown format": (["query", "funnel", "--output", "x.xlsx"], "--format"),
    "a folder that is not there": (["query", "funnel", "--output", "/no/such/x.csv"], "no such folder"),
    "memory that is no number": (["query", "funnel", "--memory", "lots"], "--memory"),
    "too little memory": (["query", "funnel", "--memory", "1MB"], "--memory"),
    "a Redis that is down": (["query", "federated-report", "--redis", "redis://127.0.0.1:1"], "Redis"),
    "a lake of another kind": (["query", "funnel", "--lake", "ftp://host"], "s3://"),
    "not SQL": (["query", "README.md"], "not SQL"),
    "nothing to ask": (["query", "-"], "no statement"),
    "Athena's for Redshift": (["redshift", "funnel", "--region", "eu-central-1"], "written for Athena"),
    "thresholds that are not there": (["profile", "--thresholds", "/no/such"], "check the path"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_one_clear_sentence(error: str, folder: Path, clickstream: Any) -> None:
    arguments, said = ERRORS[error]

    done = clickstream(*arguments, code=1, CLICKSTREAM_DATA=str(folder))

    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_threshold_is_named_and_the_exit_code_says_so(folder: Path, tmp_path: Path, clickstream: Any) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("duplicate_click_share: 0.5\nrejected_share: 0.5\n")

    done = clickstream("profile", "--folder", folder, "--thresholds", limits, "--format", "json", code=1)

    found = json.loads(done.stdout)
    assert found["hours"][0]["enriched"] == 5
    assert found["broken"] == [found["broken"][0]]
    assert "duplicate_click_share is" in done.stderr
    assert "by hour of arrival" in clickstream("profile", "--folder", folder).stdout


@pytest.mark.parametrize("command", ["query", "redshift", "profile"])
def test_every_command_has_an_example_in_its_help(command: str, clickstream: Any) -> None:
    assert f"clickstream {command}" in clickstream(command, "--help").stdout


def test_a_lake_is_not_changed_by_being_asked(tmp_path: Path, clickstream: Any) -> None:
    write_enriched(tmp_path / "lake", hand_events())
    before = sorted(Lake(str(tmp_path / "lake")).files(""))

    clickstream("query", "sessions", "--folder", tmp_path)

    assert sorted(Lake(str(tmp_path / "lake")).files("")) == before
