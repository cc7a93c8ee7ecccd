"""What a person types, and what they then see: the commands against real servers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from cli import setup
from cli.servers import PROJECT
from clickstream.errors import Refused
from generator.malformed import KINDS
from tests.events import payload
from tests.jobs import processes_with
from tests.servers import S3Server

CLICKSTREAM = [sys.executable, "-m", "cli.main"]


def clickstream(*arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CLICKSTREAM, *map(str, arguments)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def count(lake: Path, table: str, where: str = "true") -> int:
    files = [str(file) for file in (lake / table).rglob("part-*")]
    if not files:
        return 0
    query = f"SELECT count(*) FROM read_parquet($1, hive_partitioning = true) WHERE {where}"
    return int(duckdb.execute(query, [files]).fetchall()[0][0])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """One run with an input of one's own; the tests below look at different sides of it."""
    folder = tmp_path_factory.mktemp("run")
    lake = folder / "100 % mine #1"  # a name that a URI would have to escape
    lines = [
        payload(user_id=str(n % 7), click_id=f"c{n}", event_name="ViewContent", percent_viewed=n) for n in range(101)
    ]
    lines += [b"", b"{", b"\xff\xfe", b" ", payload(percent_viewed=101), payload(user_ip="10.0.0.1")]
    (folder / "events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "users.csv").write_text("customer_id,pixel_id,name,price_per_click\n1,p,Ada Lovelace,0.25\n2,q,美咲,1\n")
    done = clickstream(
        "run",
        *("--input", folder / "events.ndjson"),
        *("--users", folder / "users.csv"),
        *("--lake", lake),
        *("--report", folder / "report.json"),
        *("--folder", folder / "data"),
    )
    report = json.loads((folder / "report.json").read_text())
    return {"folder": folder, "lake": lake, "report": report, "screen": done.stdout, "lines": len(lines)}


def test_the_report_adds_up_and_every_line_was_published_as_it_is(ran: Mapping[str, Any]) -> None:
    report = ran["report"]

    assert report["published"] == ran["lines"] == 107
    assert report["published"] == report["enriched"] + report["rejected"] + report["suppressed"] == report["raw"]
    assert (report["enriched"], report["rejected"], report["offers"]) == (102, 5, 40)
    assert (report["users_seen"], report["unknown_location"]) == (8, 1)
    assert report["raw_bytes"] > 0
    assert report["enriched_bytes"] > 0
    assert report["seconds"] > 0


def test_the_report_is_what_is_in_the_lake(ran: Mapping[str, Any]) -> None:
    assert count(ran["lake"], "enriched") == 102
    assert count(ran["lake"], "raw") == 107
    assert count(ran["lake"], "rejected", "payload = '\\xFF\\xFE'::BLOB AND reason = 'not_utf8'") == 1
    assert count(ran["lake"], "enriched", "user_id = '1' AND name = 'Ada Lovelace' AND name_status = 'found'") == 15
    assert count(ran["lake"], "enriched", "user_id = '3' AND name IS NULL AND name_status = 'unknown'") == 14


def test_the_screen_shows_the_sum_in_plain_text(ran: Mapping[str, Any]) -> None:
    assert "107 events in" in ran["screen"]
    assert "\x1b[" not in ran["screen"]
    assert "the books balance: 107 records = 102 enriched + 5 rejected" in ran["screen"]
    for line in ("published", "= enriched", "+ rejected", "offers", "enriched, for example"):
        assert line in ran["screen"]


def test_the_federated_report_joins_the_redis_and_the_users_that_a_run_leaves(ran: Mapping[str, Any]) -> None:
    where = ("--lake", ran["lake"], "--folder", ran["folder"] / "data")

    (report,) = json.loads(clickstream("query", "federated-report", *where, "--format", "json").stdout)

    assert (report["user_id"], report["last_access"], report["location"], report["price_per_click"]) == (
        *("35", "2021-07-12 12:01:58.732726"),
        *("unknown", None),
    )


def test_nothing_is_left_running(ran: Mapping[str, Any]) -> None:
    assert processes_with(str(ran["folder"])) == []


def test_a_replay_of_raw_replaces_what_was_there_and_changes_nothing(ran: Mapping[str, Any]) -> None:
    before = _rows(ran["lake"], "enriched")

    clickstream("replay", ran["lake"] / "raw", "--lake", ran["lake"], "--folder", ran["folder"] / "data")

    assert _rows(ran["lake"], "enriched") == before
    assert (count(ran["lake"], "rejected"), count(ran["lake"], "raw")) == (5, 107)
    assert not [file for file in (ran["lake"] / "_replay").rglob("*") if file.is_file()]


def test_a_replay_in_s3_replaces_what_was_there_and_changes_nothing(
    ran: Mapping[str, Any], s3_server: S3Server
) -> None:
    s3_server.client().create_bucket(Bucket="replayed")
    in_s3 = fs.S3FileSystem(endpoint_override=s3_server.endpoint, access_key="local", secret_key="local")
    fs.copy_files(str(ran["lake"]), "replayed/lake", destination_filesystem=in_s3)
    before = _in_s3(in_s3, "replayed/lake/enriched")

    clickstream(
        *("replay", "s3://replayed/lake/raw", "--lake", "s3://replayed/lake"),
        *("--lake-endpoint", s3_server.endpoint, "--folder", ran["folder"] / "data"),
        AWS_ACCESS_KEY_ID="local",
        AWS_SECRET_ACCESS_KEY="local",
    )

    after = _in_s3(in_s3, "replayed/lake/enriched")
    assert after.column("click_id").to_pylist() == before.column("click_id").to_pylist() != []
    assert after.equals(before)
    assert _in_s3(in_s3, "replayed/lake/rejected").num_rows == 5
    assert not in_s3.get_file_info(fs.FileSelector("replayed/lake/_replay", allow_not_found=True, recursive=True))


def _in_s3(in_s3: fs.FileSystem, table: str) -> pa.Table:
    found = in_s3.get_file_info(fs.FileSelector(table, recursive=True))
    paths = [info.path for info in found if info.is_file and info.base_name.startswith("part-")]
    rows = pa.concat_tables([pq.read_table(path, filesystem=in_s3, partitioning=None) for path in paths])
    return rows.sort_by([("shard_id", "ascending"), ("sequence_number", "ascending")])


def test_a_replay_of_rejected_adds_what_is_an_event_now_beside_what_was_one_before(ran: Mapping[str, Any]) -> None:
    lake = ran["lake"]
    (file,) = [file for file in (lake / "rejected").rglob("part-*") if count_in(file, "reason = 'out_of_range'")]
    repaired = duckdb.execute(
        "SELECT * REPLACE (CASE WHEN reason = 'out_of_range' THEN $2::BLOB ELSE payload END AS payload)"
        " FROM read_parquet($1)",
        [str(file), payload(percent_viewed=100, click_id="repaired")],
    ).df()
    source = ran["folder"] / "repaired" / file.parent.relative_to(lake / "rejected")
    source.mkdir(parents=True)
    repaired["payload"] = repaired["payload"].map(bytes)
    repaired.to_parquet(source / "part-0", coerce_timestamps="us")

    clickstream("replay", ran["folder"] / "repaired", "--lake", lake, "--folder", ran["folder"] / "replay")

    assert count(lake, "enriched", "click_id = 'repaired'") == 1
    assert (count(lake, "enriched"), count(lake, "rejected")) == (103, 4)


def count_in(file: Path, where: str) -> int:
    return int(duckdb.execute(f"SELECT count(*) FROM read_parquet($1) WHERE {where}", [str(file)]).fetchall()[0][0])


def _rows(lake: Path, table: str) -> list[tuple[Any, ...]]:
    files = [str(file) for file in (lake / table).rglob("part-*")]
    return duckdb.execute(
        "SELECT * FROM read_parquet($1, hive_partitioning = true) ORDER BY shard_id, sequence_number", [files]
    ).fetchall()


def test_ctrl_c_while_following_commits_everything_and_leaves_no_process(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = subprocess.Popen(
        [*CLICKSTREAM, "run", "--follow", "--rate", "50", "--folder", str(tmp_path), "--report", str(report)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not count(tmp_path / "lake", "enriched"):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.5)

    run.send_signal(signal.SIGINT)
    screen, _ = run.communicate(timeout=120)

    assert run.returncode == 0, screen
    books = json.loads(report.read_text())
    assert books["published"] == books["enriched"] + books["rejected"] == count(tmp_path / "lake", "raw")
    assert processes_with(str(tmp_path)) == []


def test_an_input_without_a_record_and_a_line_too_large_for_the_stream_are_said_and_are_no_failure(
    tmp_path: Path,
) -> None:
    (tmp_path / "input").write_bytes(b"x" * ((1 << 20) + 1) + b"\n")

    done = clickstream(
        *("run", "--input", tmp_path / "input", "--folder", tmp_path / "data"),
        *("--lake", tmp_path / "lake", "--report", tmp_path / "report"),
    )

    report = json.loads((tmp_path / "report").read_text())
    assert (report["published"], report["refused_by_stream"], report["raw"]) == (0, 1, 0)
    assert "the stream refused them" in done.stderr


def test_ctrl_c_at_any_time_leaves_no_process(tmp_path: Path) -> None:
    run = subprocess.Popen([*CLICKSTREAM, "run", "--folder", str(tmp_path)], cwd=PROJECT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not processes_with("java", str(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    run.send_signal(signal.SIGINT)

    assert run.wait(60) == 130
    assert processes_with(str(tmp_path)) == []


def test_ctrl_c_is_not_lost_in_a_finalizer() -> None:
    """Python prints what a finalizer raises and goes on: SQLAlchemy's may be running when Ctrl-C comes."""
    command = """
import signal, time
from cli import main

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def app():
    Finalized()
    time.sleep(30)

main.app = app
main.main()
"""
    done = subprocess.run([sys.executable, "-c", command], cwd=PROJECT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--input", "/no/such/file"], "there is no such file"),
        (["run", "--folder", "/no/such folder"], "Next: choose another folder"),
        (["run", "--lake", "ftp://host/lake"], "a lake is a folder or an s3:// URI"),
        (["replay", "/no/such/folder"], "there is no Parquet"),
        (["users", "sync", "--redis", "redis://127.0.0.1:1"], "error: "),
        (["generate", "--to", "/no/such/folder/file"], "error: "),
    ],
)
def test_an_error_is_one_clear_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = clickstream(*arguments, code=1, CLICKSTREAM_DATA=str(tmp_path))

    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_setup_names_the_compiler_that_is_missing_where_java_is_there_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {"java": """echo 'openjdk version "17.0.15"' >&2""", "mvn": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(setup, "JAR", tmp_path / "not yet.jar")

    with pytest.raises(Refused, match=r"javac is not installed here\. Next: apt-get install openjdk"):
        setup.setup()


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "setup",
        "generate",
        "replay",
        "package",
        "offers",
        "users sync",
        "users load",
        "scaling simulate",
        "scaling record",
    ],
)
def test_every_command_has_an_example_in_its_help(command: str) -> None:
    assert f"clickstream {command}" in clickstream(*command.split(), "--help").stdout


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text()
    assert "\nmake run\n" in readme
    assert "make run INPUT=events.ndjson USERS=users.csv LAKE=/some/dir REPORT=report.json EVENTS=20000" in readme
    query = next(line for line in readme.splitlines() if "import duckdb" in line)
    clickstream("generate", "--to", tmp_path / "events.ndjson", "--events", "300", "--users", tmp_path / "users.csv")
    given = {"INPUT": "events.ndjson", "USERS": "users.csv", "LAKE": "lake", "REPORT": "report.json"}

    subprocess.run(
        ["make", "-s", "run", "EVENTS=200", *(f"{name}={tmp_path / file}" for name, file in given.items())],
        cwd=PROJECT,
        env={**os.environ, "CLICKSTREAM_DATA": str(tmp_path / "data")},
        check=True,
        capture_output=True,
    )
    shown = subprocess.run(
        ["bash", "-c", query.replace(".data/lake", str(tmp_path / "lake"))],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert json.loads((tmp_path / "report.json").read_text())["published"] == 200
    assert "country" in shown.stdout


def test_generated_files_hold_the_malformed_share_and_the_users(tmp_path: Path) -> None:
    clickstream(
        "generate", "--to", tmp_path / "events", "--events", "500", "--malformed", "0.1", "--users", tmp_path / "u"
    )

    lines = (tmp_path / "events").read_bytes().split(b"\n")[:-1]
    assert len(lines) == 500
    assert (tmp_path / "u").read_text().startswith("customer_id,pixel_id,name,price_per_click\n")
    assert len(KINDS) > 30
