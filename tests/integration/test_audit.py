"""The audit against real streams and a real S3, and on a lake larger than the memory it may use."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.audit import Audit
from cli.ledger import Kind
from cli.servers import PROJECT, Kinesalite
from clickstream.batch import Arrived, origin
from clickstream.person import Person
from clickstream.schema import RAW, REJECTED
from connectors.erasure import Erasure
from connectors.lake import Lake
from generator.malformed import mixed
from generator.manifest import read_manifest
from generator.records import Record
from generator.shoppers import Shoppers
from tests.events import offered, payload
from tests.jobs import publish, stream_records
from tests.lakes import files, rewrite, with_value, write_batch
from tests.oracle import Arrived as OfStream
from tests.servers import S3Server
from tests.unit.test_process import process

AUDIT = [sys.executable, "-m", "cli.main", "audit"]


@pytest.fixture
def offers(kinesalite: Kinesalite, stream: str) -> str:
    name = f"{stream}-offers"
    kinesalite.create_stream(name)
    return name


def processed(lake: Lake, records: Sequence[OfStream]) -> list[str]:
    """Write what comes of records into a lake; return the ids of the offers that were earned."""
    arrived = Arrived(
        pa.array([one.payload for one in records], pa.binary()),
        origin(
            pa.array([one.arrival for one in records], pa.timestamp("us", "UTC")),
            [one.shard_id for one in records],
            [one.sequence_number for one in records],
        ),
    )
    write_batch(lake, process(), arrived, "part-0")
    return [one["offer_id"] for one in offered(process()(arrived))]


def offer(offer_id: str) -> Record:
    """Make an offer; all but its id is of no interest here."""
    values = {"timestamp": "2021-07-12 12:01:58.000000", "event_name": "ViewContent", "percent_viewed": 61.0}
    values |= {"product_id": 1, "price": 1.0, "user_id": "35", "click_id": "c", "offer_id": offer_id}
    return Record("35", json.dumps(values).encode())


def test_the_lake_and_the_offers_are_held_to_what_the_streams_hold(
    kinesalite: Kinesalite, stream: str, offers: str, tmp_path: Path
) -> None:
    publish(kinesalite, stream, islice(mixed(Shoppers(5).records(), 0.05, Random(5)), 3000))
    lake = Lake(str(tmp_path))
    earned = processed(lake, stream_records(kinesalite, stream))
    publish(kinesalite, offers, map(offer, earned))

    with closing(kinesalite.client()) as client:
        audit = Audit(lake, client, stream=stream, offers=offers)
        assert audit().balanced
        assert audit().offers == {"due": len(earned), "sent": len(earned), "repeats": 0}

        publish(kinesalite, offers, [offer(earned[0]), offer("nobody's"), Record("35", b"no offer at all")])
        more = audit()
        assert more.differences == {Kind.OFFER_UNEXPECTED: 2}
        assert more.offers == {"due": len(earned), "sent": len(earned) + 3, "repeats": 1}
        assert {(one.shard_id, len(one.sequence_number or "")) for one in more.first} == {("shardId-000000000000", 56)}

        publish(kinesalite, stream, [Record("k", b"the job has not seen this")])
        (late,) = audit().first[:1]
        assert (late.kind, late.detail) == (Kind.LOST, "nowhere in the lake")
        assert late.sequence_number == max(one.sequence_number for one in stream_records(kinesalite, stream))


def test_offers_of_those_who_were_erased_since_are_known(
    kinesalite: Kinesalite, stream: str, offers: str, tmp_path: Path
) -> None:
    users = [str(number % 3) for number in range(30)]
    telling = {"event_name": "ViewContent", "percent_viewed": 90}
    views = [payload(**telling, user_id=user, click_id=f"c{number}") for number, user in enumerate(users)]
    publish(kinesalite, stream, map(Record, users, views))
    lake = Lake(str(tmp_path))
    earned = processed(lake, stream_records(kinesalite, stream))
    publish(kinesalite, offers, [*map(offer, earned), offer("nobody's")])
    Erasure(lake, Person("2"), "ticket 4711")()

    with closing(kinesalite.client()) as client:
        verdict = Audit(lake, client, stream=stream, offers=offers)()

    assert verdict.totals["erased"] == 10
    assert verdict.offers == {"due": 20, "sent": 31, "repeats": 0}
    assert verdict.differences == {Kind.OFFER_UNEXPECTED: 1}  # that of nobody


def test_what_the_stream_never_took_and_what_it_took_otherwise_is_named(
    kinesalite: Kinesalite, stream: str, offers: str, tmp_path: Path
) -> None:
    publish(kinesalite, stream, [Record(str(n), payload(user_id=str(n), click_id=f"c{n}")) for n in range(100)])
    lake = Lake(str(tmp_path))
    processed(lake, stream_records(kinesalite, stream))
    (raw,), (enriched,) = files(tmp_path, "raw"), files(tmp_path, "enriched")
    for file in (raw, enriched):  # so that the lake agrees with itself
        rewrite(file, with_value("sequence_number", 7, "49680"))
    forged = payload(user_id="forged")
    rewrite(raw, with_value("payload", 8, forged))
    rewrite(enriched, with_value("user_id", 8, "forged"))

    with closing(kinesalite.client()) as client:
        verdict = Audit(lake, client, stream=stream, offers=offers)()

    assert verdict.differences == {Kind.LOST: 1, Kind.NOT_IN_RAW: 1, Kind.NOT_ACCEPTED: 1, Kind.CHANGED: 1}
    said = {one.kind: one for one in verdict.first}
    assert said[Kind.NOT_ACCEPTED].sequence_number == "49680"
    assert "the payload differs between accepted and raw" in said[Kind.CHANGED].detail


def test_an_offer_that_was_not_sent_is_named_unless_a_replay_has_put_its_row_there(
    kinesalite: Kinesalite, stream: str, offers: str, tmp_path: Path
) -> None:
    views = [payload(event_name="ViewContent", percent_viewed=90, click_id=f"c{n}") for n in range(10)]
    publish(kinesalite, stream, [Record("35", view) for view in views])
    lake = Lake(str(tmp_path))
    earned = processed(lake, stream_records(kinesalite, stream))
    publish(kinesalite, offers, map(offer, earned[1:]))
    (file,) = files(tmp_path, "enriched")
    unsent = pq.ParquetFile(file).read(["sequence_number"]).to_pylist()[0]["sequence_number"]

    with closing(kinesalite.client()) as client:
        audit = Audit(lake, client, stream=stream, offers=offers)
        verdict = audit()
        file.rename(file.with_name("part-replay-1"))
        replayed = audit()

    assert verdict.differences == {Kind.OFFER_MISSING: 1}
    assert verdict.first[0].sequence_number == unsent
    assert replayed.balanced


def test_a_lake_in_s3_is_audited_like_a_folder(
    kinesalite: Kinesalite, stream: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    with closing(s3_server.client()) as s3:
        s3.create_bucket(Bucket="books")
        publish(kinesalite, stream, islice(Shoppers(6).records(), 500))
        lake = Lake("s3://books/lake", s3_server.endpoint)
        processed(lake, stream_records(kinesalite, stream))
        arguments = ["--lake", "s3://books/lake", "--lake-endpoint", s3_server.endpoint]
        arguments += ["--stream", stream, "--endpoint", kinesalite.endpoint]
        whole = audited(*arguments)
        (file,) = lake.files("enriched")
        s3.delete_object(Bucket="books", Key=file.path.removeprefix("books/"))
        damaged = audited(*arguments, code=1)

    assert whole["balanced"]
    assert damaged["differences"] == {"lost": 500}


def audited(*arguments: str | Path, code: int = 0) -> Any:
    done = subprocess.run(
        [*AUDIT, *map(str, arguments), "--json"], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr[-2000:]
    assert bool(code) == ("the books do not balance" in done.stderr)
    return json.loads(done.stdout)


def test_the_command_shows_hours_and_differences_but_nothing_of_what_a_client_sent(
    kinesalite: Kinesalite, stream: str, tmp_path: Path
) -> None:
    secret = "Wilhelmina"
    publish(kinesalite, stream, [Record("35", payload(user_id=secret, click_id=f"c{n}")) for n in range(30)])
    processed(Lake(str(tmp_path / "lake")), stream_records(kinesalite, stream))
    (enriched,) = files(tmp_path / "lake", "enriched")
    rewrite(enriched, with_value("user_id", 0, secret * 2))

    done = subprocess.run(
        [*AUDIT, "--folder", str(tmp_path), "--stream", stream, "--endpoint", kinesalite.endpoint],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "shardId-000000000000" in done.stdout
    assert "changed" in done.stdout
    assert "1 changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert secret not in done.stdout + done.stderr
    assert not list(tmp_path.glob("audit-*"))


def test_what_the_generator_writes_down_is_what_the_stream_took(
    kinesalite: Kinesalite, stream: str, tmp_path: Path
) -> None:
    generate = [sys.executable, "-m", "cli.main", "generate", "--events", "700", "--manifest"]
    to_stream = [tmp_path / "accepted.ndjson", "--to", f"kinesis:{stream}", "--endpoint", kinesalite.endpoint]

    done = subprocess.run([*generate, *to_stream], cwd=PROJECT, capture_output=True, text=True, check=False)
    refused = subprocess.run(
        [*generate, tmp_path / "none.ndjson", "--to", tmp_path / "events"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    taken = {(one.shard_id, one.sequence_number) for one in stream_records(kinesalite, stream)}
    assert set(read_manifest(tmp_path / "accepted.ndjson")) == taken
    assert len(taken) == 700
    assert refused.returncode == 1
    assert "Next: --to kinesis:STREAM" in refused.stderr
    assert not (tmp_path / "none.ndjson").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there is nothing to compare"),
        (["--memory", "a lot"], "give more to --memory"),
        (["--manifest", "/nowhere/at/all"], "is no manifest"),
        (["--lake", "ftp://lake"], "a lake is a folder or an s3:// URI"),
    ],
)
def test_an_audit_of_nothing_or_with_a_wrong_option_is_one_sentence(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*AUDIT, "--folder", tmp_path, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


MANY = 2_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two million records, all rejected, one lost and one there twice."""
    root = tmp_path_factory.mktemp("large") / "lake"
    a_file = 250_000
    for first in range(0, MANY, a_file):
        numbers = [f"49590338271490256608559692538361571095921575989136588{n:07}" for n in range(first, first + a_file)]
        hour = f"year=2026/month=01/day=01/hour={first // a_file // 2:02}"
        arrival = np.datetime64("2026-01-01T00", "us") + np.timedelta64(first // a_file // 2, "h")
        where = [
            pa.array(np.repeat(arrival, a_file)).cast(pa.timestamp("us", "UTC")),
            pa.array([f"shardId-{number:012}" for number in range(a_file)]).slice(0, a_file),
            pa.array(numbers),
        ]
        where[1] = pa.array(["shardId-000000000000", "shardId-000000000001"] * (a_file // 2))
        payloads = pa.array([b"{"] * a_file, pa.binary())
        why = [pa.array(["decode"] * a_file), pa.array(["malformed_json"] * a_file), pa.nulls(a_file, pa.string())]
        for table, schema, columns in (("raw", RAW, []), ("rejected", REJECTED, why)):
            rows = pa.Table.from_arrays([payloads, *columns, *where], schema=schema)
            if table == "rejected" and first == 0:
                rows = pa.concat_tables([rows.slice(1), rows.slice(1, 1)])
            (root / table / hour).mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, root / table / hour / f"part-{first}", row_group_size=50_000, coerce_timestamps="us")
    return root


def test_two_million_records_are_compared_within_a_memory_limit(large: Path, tmp_path: Path) -> None:
    program = (
        "import re, sys; from pathlib import Path; from cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except BaseException as error: print(type(error).__name__, file=sys.stderr)\n"
        # the peak of this program: what getrusage tells is at least the parent's, from which it was started
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "audit", "--lake", large, "--folder", tmp_path, "--memory", "200MB", "--json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    facts = json.loads(done.stdout)
    assert facts["totals"]["raw"] == facts["totals"]["rejected"] == MANY
    assert facts["differences"] == {"lost": 1, "repeated": 1}
    *_, failure, kibibytes = done.stderr.splitlines()
    assert failure == "BooksDoNotBalance"
    assert int(kibibytes) < 700 * 1024, "the origins of both tables alone are larger"
