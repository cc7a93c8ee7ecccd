"""What an erase promises, on a folder and on S3: others keep their rows, whoever dies in between can go on."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickstream.errors import Refused
from clickstream.person import Person
from clickstream.schema import ENRICHED, ORIGIN, RAW, REJECTED
from connectors.erasure import PASSES, RECORDS, Erasure, digest, search
from connectors.lake import Lake, LakeFile
from tests.events import EXAMPLE, payload
from tests.servers import S3Server

HOURS = [f"year=2021/month=07/day=12/hour={hour}" for hour in ("11", "12")]
USERS = ["7", "35", "135", "35", "8"]
NOW = datetime(2021, 7, 13, tzinfo=UTC)


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a lake is made from."""
    if request.param == "folder":
        yield [str(tmp_path / "lake")]
        return
    server: S3Server = request.getfixturevalue("s3_server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    bucket = f"lake-{uuid4().hex[:8]}"
    server.client().create_bucket(Bucket=bucket)
    yield [f"s3://{bucket}/lake", server.endpoint]


def naive(schema: pa.Schema) -> pa.Schema:
    """A schema as Flink writes it: its timestamps name no zone."""
    return pa.schema(
        [pa.field(f.name, pa.timestamp("us") if pa.types.is_timestamp(f.type) else f.type) for f in schema]
    )


def origin(number: int) -> dict[str, Any]:
    values = (datetime(2021, 7, 12, 12, 2), f"shardId-{number % 2}", str(number))
    return dict(zip([column.name for column in ORIGIN], values, strict=True))


def filled(root: list[str]) -> Lake:
    """A lake of two hours, with every kind of file, and one hour of enriched rows that are the user's alone."""
    lake = Lake(*root)
    for hour in HOURS:
        events = [
            {
                **EXAMPLE,
                "timestamp": datetime(2021, 7, 12),
                "insertion_timestamp": datetime(2021, 7, 12),
                "user_id": user,
                "user_ip": f"8.8.8.{number}",
                "city": "Łódź",
                **origin(number),
            }
            for number, user in enumerate(USERS if hour == HOURS[0] else ["35"])
        ]
        lake.write("enriched", hour, "part-0", pa.Table.from_pylist(events, naive(ENRICHED)))
        records = [{"payload": payload(user_id=user), **origin(n)} for n, user in enumerate(USERS)]
        lake.write("raw", hour, "part-0", pa.Table.from_pylist(records, naive(RAW)))
        broken = [{"payload": payload(user_id=user)[:-9], "reason": "x", **origin(n)} for n, user in enumerate(USERS)]
        lake.write("rejected", hour, "part-0", pa.Table.from_pylist(broken, naive(REJECTED)))
        flat = pa.table({"user_id": USERS, "price": [1.5] * 5, **{n: ["x"] * 5 for n in ("shard_id",)}})
        lake.write("flattened", hour, "part-0.zstd.parquet", flat, codec="zstd")
    lake.write("raw", HOURS[0], "part-1", pa.Table.from_pylist([{"payload": b"x", **origin(9)}], naive(RAW)))
    lake.put("unloads", "users", "000.csv", b'user_id|country|count\n7|US|35\n35|"US"|1\n"35"|DE|2\n')
    lake.put("unloads", "counts", "000", b"country|event_name|count\nUS|Search|35\n")
    lake.put("firehose", "2021/07/12", "one.gz", gzip.compress(b"\n".join(payload(user_id=u) for u in USERS) + b"\n"))
    return lake


def contents(lake: Lake) -> dict[str, list[Any]]:
    """All rows and lines there are, in order within a table."""
    found: dict[str, list[Any]] = {}
    for table in lake.tables():
        for file in sorted(
            lake.files(table),
            key=lambda file: (file.partition, lake.rows(file)) if table == "raw" else (file.partition, 0),
        ):
            if lake.is_parquet(file):
                rows = [{**row, "partition": file.partition} for row in lake.read(file).to_pylist()]
            else:
                data = lake.get(lake.path(file)) or b""
                rows = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).splitlines()
            found.setdefault(table, []).extend(rows)
    return found


def theirs(row: Any) -> bool:
    if isinstance(row, dict):
        return row.get("user_id") == "35" or b'"user_id": "35"' in row.get("payload", b"")
    return b'"user_id": "35"' in row or row.startswith((b"35|", b'"35"|'))


def records(lake: Lake) -> Counter[tuple[str, str, str]]:
    """The records of erases: rows by table, partition and shard."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for file in lake.files(RECORDS):
        for row in lake.read(file).to_pylist():
            counted[row["table"], file.partition, row["shard_id"]] += row["rows"]
    return counted


def test_an_erase_takes_out_their_rows_and_leaves_those_of_others_in_order(root: list[str]) -> None:
    lake = filled(root)
    before = contents(lake)

    erased = Erasure(lake, Person("35"), "ticket 4711", NOW)()

    others = {table: [row for row in rows if not theirs(row)] for table, rows in before.items()}
    assert contents(lake) == others
    assert erased.rows == {"enriched": 3, "raw": 4, "rejected": 4, "flattened": 4, "unloads": 2, "firehose": 2}
    assert not erased.left
    assert not list(search(lake, Person("35")))
    assert erased.addresses == {"8.8.8.0", "8.8.8.1", "8.8.8.3", "111.33.64.227"}


def test_files_without_them_are_not_touched_and_new_ones_are_as_the_old_ones_were(root: list[str]) -> None:
    lake = filled(root)
    before = {file.path: file for table in lake.tables() for file in lake.files(table)}
    schemas = {table: pq_schema(lake, lake.files(table)[0]) for table in ("enriched", "raw", "rejected", "flattened")}

    Erasure(lake, Person("135"), "me", NOW)()

    after = {file.path for table in lake.tables() for file in lake.files(table)}
    untouched = {path.rpartition("/lake/")[2] for path in after & set(before)}
    assert untouched == {
        f"enriched/{HOURS[1]}/part-0",
        f"raw/{HOURS[0]}/part-1",
        "unloads/users/000.csv",
        "unloads/counts/000",
    }
    for table, schema in schemas.items():
        for file in lake.files(table):
            assert pq_schema(lake, file) == schema
            assert lake.codec(file) == ("zstd" if table == "flattened" else "snappy")


def pq_schema(lake: Lake, file: LakeFile) -> list[tuple[str, str, str]]:
    """The columns as the file itself has them."""
    data = lake.get(lake.path(file))
    schema = pq.ParquetFile(pa.BufferReader(data)).schema
    return [(one.path, one.physical_type, str(one.logical_type)) for one in map(schema.column, range(len(schema)))]


def test_the_record_says_which_rows_of_which_table_hour_and_shard_and_names_nobody(root: list[str]) -> None:
    lake = filled(root)
    gone = [
        (table, row["partition"], row.get("shard_id", ""))
        for table, rows in contents(lake).items()
        if table in ("enriched", "raw", "rejected", "flattened")
        for row in rows
        if theirs(row)
    ]

    erasure = Erasure(lake, Person("35"), "ticket 4711", NOW)
    erasure()

    lines = {("unloads", "users", ""): 2, ("firehose", "2021/07/12", ""): 2}
    assert records(lake) == Counter(gone) + Counter(lines)
    rows = [row for file in lake.files(RECORDS) for row in lake.read(file).to_pylist()]
    assert {(row["erase_id"], row["asked_by"], row["at"]) for row in rows} == {(erasure.erase_id, "ticket 4711", NOW)}
    assert set(rows[0]) == {"erase_id", "asked_by", "at", "table", "shard_id", "rows", "origins", "offers"}
    for table, numbers in {"enriched": [1, 3, 0], "raw": [1, 3] * 2, "flattened": []}.items():
        origins = [one for row in rows if row["table"] == table for one in row["origins"]]
        assert Counter(origins) == Counter(digest(f"shardId-{number % 2}/{number}") for number in numbers)
    assert not lake.unfinished(RECORDS)


class DiesAt(Lake):
    """A lake whose user dies at one of its writing operations, before it or just after it."""

    def __init__(self, root: list[str], operation: int, *, after: bool) -> None:
        super().__init__(*root)
        self.left = operation
        self.after = after

    def _one(self, do: Any) -> Any:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise KeyboardInterrupt
        result = do()
        if self.left < 0:
            raise KeyboardInterrupt
        return result

    def put(self, *arguments: Any, **options: Any) -> Any:
        return self._one(lambda: super(DiesAt, self).put(*arguments, **options))

    def rename(self, *arguments: Any) -> Any:
        return self._one(lambda: super(DiesAt, self).rename(*arguments))

    def remove(self, *arguments: Any) -> Any:
        return self._one(lambda: super(DiesAt, self).remove(*arguments))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_who_dies_at_any_point_can_start_again_and_nothing_is_lost_or_there_twice(tmp_path: Path, after: bool) -> None:
    whole = filled([str(tmp_path / "whole" / "lake")])
    Erasure(whole, Person("35"), "me", NOW)()
    expected, on_record = contents(whole), records(whole)
    operation = 0
    died = True
    while died:
        root = [str(tmp_path / f"{operation}" / "lake")]
        lake = filled(root)
        died = False

        try:
            Erasure(DiesAt(root, operation, after=after), Person("35"), "me", NOW)()
        except KeyboardInterrupt:
            died = True
        others = {(r["sequence_number"], r["partition"]) for r in contents(lake)["raw"] if not theirs(r)}
        again = Erasure(lake, Person("35"), "me", NOW)()

        assert len(others) == 7  # at no time is anything of others gone
        assert contents(lake) == expected, operation
        assert records(lake) == on_record, operation
        assert not again.left
        assert not [file for table in [*lake.tables(), RECORDS] for file in lake.unfinished(table)]
        operation += 1
    assert operation > 20


def test_another_users_erase_finishes_what_one_that_died_has_begun(tmp_path: Path) -> None:
    root = [str(tmp_path / "lake")]
    lake = filled(root)
    expected = {
        table: [row for row in rows if not theirs(row) and not (isinstance(row, dict) and row.get("user_id") == "8")]
        for table, rows in contents(lake).items()
    }["enriched"]

    with pytest.raises(KeyboardInterrupt):
        Erasure(DiesAt(root, 6, after=False), Person("35"), "me", NOW)()  # swapped, the old files still there
    Erasure(lake, Person("8"), "me", NOW)()
    Erasure(lake, Person("35"), "me", NOW)()

    assert contents(lake)["enriched"] == expected


def test_what_a_job_commits_meanwhile_is_erased_too(root: list[str]) -> None:
    lake = filled(root)
    commits = iter(["late-1", "late-2"])

    def looked() -> None:
        if name := next(commits, None):
            row = {"payload": payload(user_id="35"), **origin(50)}
            lake.write("raw", HOURS[1], name, pa.Table.from_pylist([row], naive(RAW)))

    erased = Erasure(lake, Person("35"), "me", NOW)(looked)

    assert erased.rows["raw"] == 6
    assert not list(search(lake, Person("35")))


def test_a_user_who_does_not_stop_clicking_is_said_to_be_left(tmp_path: Path) -> None:
    lake = filled([str(tmp_path / "lake")])
    number = 0

    def looked() -> None:
        nonlocal number
        number += 1
        row = {"payload": payload(user_id="35"), **origin(50)}
        lake.write("raw", HOURS[1], f"late-{number}", pa.Table.from_pylist([row], naive(RAW)))

    erased = Erasure(lake, Person("35"), "me", NOW)(looked)

    assert erased.left["raw"]
    assert PASSES > 1


def test_an_erase_waits_for_no_replay_and_for_no_other_erase(root: list[str]) -> None:
    lake = filled(root)

    staged = lake.put("_replay/run/enriched", HOURS[0], ".part-0.inprogress", b"x")
    with pytest.raises(Refused, match="replay is at work"):
        Erasure(lake, Person("35"), "me", NOW)()
    lake.remove(staged)
    lake.put(RECORDS, "", ".lock.json", json.dumps({"host": "elsewhere", "pid": 1}).encode())
    with pytest.raises(Refused, match="process 1 on elsewhere"):
        Erasure(lake, Person("35"), "me", NOW)()

    assert sum(one.rows for one in search(lake, Person("35"))) == 19


def test_a_file_that_cannot_be_read_is_said_and_nothing_is_claimed(tmp_path: Path) -> None:
    lake = filled([str(tmp_path / "lake")])
    lake.put("raw", HOURS[0], "part-broken", b"PAR1 and no more")

    with pytest.raises(Refused, match="part-broken cannot be read"):
        Erasure(lake, Person("35"), "me", NOW)()


def test_nothing_to_erase_leaves_no_record(root: list[str]) -> None:
    lake = filled(root)

    erased = Erasure(lake, Person("nobody"), "me", NOW)()

    assert not erased.rows
    assert not lake.files(RECORDS)
