"""The books of a lake that was damaged on purpose: the audit names each damage, and nothing else."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cli.audit import Audit
from cli.ledger import Kind, Verdict
from clickstream.batch import Arrived, origin
from clickstream.errors import Refused
from clickstream.person import Person
from connectors.erasure import Erasure
from connectors.lake import Lake
from generator.malformed import mixed
from generator.shoppers import Shoppers
from tests.lakes import files, origins, rewrite, with_value, write_batch
from tests.unit.test_process import process

A_FILE = 50  # rows
START = datetime(2026, 11, 24, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 400 records in two hours and two shards, written by the batch function, and its manifest."""
    folder = tmp_path_factory.mktemp("whole")
    lake = Lake(str(folder / "lake"))
    payloads = [one.payload for one in islice(mixed(Shoppers(3, start=START).records(), 0.1, Random(3)), 400)]
    moments = [START + timedelta(minutes=number * 0.3) for number in range(400)]
    arrivals = pa.array(moments, pa.timestamp("us", "UTC"))
    shards = [f"shardId-{number % 2:012}" for number in range(400)]
    numbers = [f"4968{number:052}" for number in range(400)]
    run = process()
    for first in range(0, 400, A_FILE):
        part = slice(first, first + A_FILE)
        arrived = Arrived(pa.array(payloads[part], pa.binary()), origin(arrivals[part], shards[part], numbers[part]))
        write_batch(lake, run, arrived, f"part-{first:04}")
    lines = [msgspec.json.encode({"shard_id": s, "sequence_number": n}) for s, n in zip(shards, numbers, strict=True)]
    (folder / "accepted.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def audited(folder: Path, **options: Any) -> Verdict:
    given: dict[str, Any] = {"manifests": [folder / "accepted.ndjson"], "first": 1000, **options}
    return Audit(Lake(str(folder / "lake")), **given)()


def named(verdict: Verdict, kind: Kind) -> set[tuple[str | None, str | None]]:
    return {(one.shard_id, one.sequence_number) for one in verdict.first if one.kind is kind}


def test_the_books_of_a_whole_lake_balance(folder: Path) -> None:
    verdict = audited(folder)

    assert verdict.balanced, verdict.first
    assert verdict.totals == {
        "origins": 400,
        "accepted": 400,
        "raw": 400,
        "enriched": 360,
        "rejected": 40,
        "suppressed": 0,
        "erased": 0,
    }
    assert [row["hour"].hour for row in verdict.hours] == [9, 9, 10, 10]
    assert sum(row["accepted"] for row in verdict.hours) == 400
    assert verdict.looked_into == 800


def test_without_anything_to_compare_with_raw_is_what_was_accepted(folder: Path) -> None:
    files(folder / "lake", "enriched")[0].unlink()

    verdict = audited(folder, manifests=[])

    assert set(verdict.differences) == {Kind.LOST}
    assert verdict.totals["accepted"] == 0


@pytest.mark.parametrize("table", ["enriched", "rejected"])
def test_a_file_removed_is_records_lost(folder: Path, table: str) -> None:
    victim = files(folder / "lake", table)[1]
    lost = origins(victim)
    victim.unlink()

    verdict = audited(folder)

    assert verdict.differences == {Kind.LOST: len(lost)}
    assert named(verdict, Kind.LOST) == lost
    assert sum(row["differences"] for row in verdict.hours) == len(lost)


def test_a_file_of_raw_removed_is_records_not_in_raw(folder: Path) -> None:
    victim = files(folder / "lake", "raw")[0]
    missing = origins(victim)
    victim.unlink()

    verdict = audited(folder)

    assert verdict.differences == {Kind.NOT_IN_RAW: len(missing)}
    assert named(verdict, Kind.NOT_IN_RAW) == missing
    assert audited(folder, archived=False).balanced


@pytest.mark.parametrize("table", ["raw", "enriched", "rejected"])
def test_a_file_copied_is_records_there_twice_in_both_files(folder: Path, table: str) -> None:
    original = files(folder / "lake", table)[2]
    copy = original.with_name("part-copy")
    shutil.copy(original, copy)

    verdict = audited(folder)

    assert verdict.differences == {Kind.REPEATED: len(origins(original))}
    assert named(verdict, Kind.REPEATED) == origins(original)
    assert all({str(original), str(copy)} <= set(one.files) for one in verdict.first)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("enriched", "user_id", "somebody else"),
        ("enriched", "timestamp", lambda moment: moment + timedelta(microseconds=1)),
        ("enriched", "additional_data", lambda data: {**data, "price": data["price"] + 0.01}),
        ("enriched", "additional_data", lambda data: {**data, "product_id": None}),
        ("enriched", "click_id", None),
        ("enriched", "arrival_timestamp", lambda moment: moment + timedelta(milliseconds=1)),
        ("rejected", "reason", "bad_mood"),
        ("rejected", "payload", b"{}"),
        ("raw", "payload", b"{}"),
        ("raw", "payload", None),
    ],
)
def test_a_row_changed_is_named(folder: Path, table: str, column: str, value: Any) -> None:
    file = files(folder / "lake", table)[0]
    changed = pq.ParquetFile(file).read().to_pylist()[3]
    rewrite(file, with_value(column, 3, value))

    verdict = audited(folder)

    assert verdict.differences == {Kind.CHANGED: 1}
    (finding,) = verdict.first
    assert (finding.shard_id, finding.sequence_number) == (changed["shard_id"], changed["sequence_number"])
    assert table in finding.detail
    assert str(file) in finding.files


def test_a_place_or_a_name_that_changed_is_no_difference(folder: Path) -> None:
    rewrite(files(folder / "lake", "enriched")[0], with_value("name", 0, "Somebody Else"))
    rewrite(files(folder / "lake", "enriched")[0], with_value("city", 0, "Elsewhere"))

    assert audited(folder).balanced


def test_a_row_under_another_sequence_number_is_one_lost_and_one_from_nowhere(folder: Path) -> None:
    file = files(folder / "lake", "enriched")[0]
    lost = pq.ParquetFile(file).read().to_pylist()[0]
    rewrite(file, with_value("sequence_number", 0, "1"))

    verdict = audited(folder)

    assert named(verdict, Kind.LOST) == {(lost["shard_id"], lost["sequence_number"])}
    assert named(verdict, Kind.NOT_IN_RAW) == {(lost["shard_id"], "1")}


def test_a_row_in_two_places_is_named(folder: Path) -> None:
    enriched, rejected = files(folder / "lake", "enriched")[0], files(folder / "lake", "rejected")[0]
    row = pq.ParquetFile(enriched).read().to_pylist()[0]

    def add(table: pa.Table) -> pa.Table:
        values = {name: row.get(name) for name in table.schema.names}
        return pa.concat_tables([table, pa.Table.from_pylist([values], schema=table.schema)])

    rewrite(rejected, add)

    verdict = audited(folder)

    assert verdict.differences[Kind.TWO_PLACES] == 1
    assert named(verdict, Kind.TWO_PLACES) == {(row["shard_id"], row["sequence_number"])}


def test_a_row_moved_to_another_partition_is_named(folder: Path) -> None:
    source, target = files(folder / "lake", "enriched")[0], files(folder / "lake", "enriched")[-1]
    assert source.parent != target.parent
    row = pq.ParquetFile(source).read().slice(5, 1)
    rewrite(source, lambda table: pa.concat_tables([table.slice(0, 5), table.slice(6)]))
    rewrite(target, lambda table: pa.concat_tables([table, row]))

    verdict = audited(folder)

    assert verdict.differences == {Kind.MISPLACED: 1}
    assert named(verdict, Kind.MISPLACED) == {(row["shard_id"][0].as_py(), row["sequence_number"][0].as_py())}
    assert verdict.first[0].files[-1] == str(target)


@pytest.mark.parametrize("keep", [0, 3, 0.5, -1])
def test_a_file_truncated_is_named_with_what_was_in_it(folder: Path, keep: float) -> None:
    file = files(folder / "lake", "enriched")[1]
    lost = origins(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])

    verdict = audited(folder)

    assert verdict.differences == {Kind.UNREADABLE: 1, Kind.LOST: len(lost)}
    assert verdict.first[0].files == (str(file),)


def test_what_is_unfinished_is_not_read(folder: Path) -> None:
    file = files(folder / "lake", "enriched")[0]
    shutil.copy(file, file.with_name(".part-x.inprogress"))
    shutil.copy(file, file.with_name("_part"))

    assert audited(folder).balanced


def test_more_in_the_lake_than_in_the_manifest_is_no_difference(folder: Path) -> None:
    manifest = folder / "accepted.ndjson"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:100]))

    verdict = audited(folder)

    assert verdict.balanced
    assert verdict.totals["accepted"] == 100


def test_a_manifest_may_be_empty_or_end_in_the_middle_of_a_line_or_be_parquet(folder: Path) -> None:
    manifest = folder / "accepted.ndjson"
    lines = manifest.read_bytes()
    as_parquet = pa.Table.from_pylist([msgspec.json.decode(line) for line in lines.splitlines()])
    pq.write_table(as_parquet, folder / "accepted.parquet")

    manifest.write_bytes(lines[:-10])
    assert audited(folder).totals["accepted"] == 399
    manifest.write_bytes(b"")
    assert audited(folder).totals["accepted"] == 0
    assert audited(folder, manifests=[folder / "accepted.parquet"]).totals["accepted"] == 400


@pytest.mark.parametrize("content", [b"not json\n", b'{"shard": 1}\n', b"\x00\xff\n"])
def test_something_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "accepted.ndjson").write_bytes(content)

    with pytest.raises(Refused, match="is no manifest"):
        audited(folder)


def without(*origins: tuple[str, str]) -> Callable[[pa.Table], pa.Table]:
    gone = pa.array([f"{shard}/{number}" for shard, number in origins])

    def change(table: pa.Table) -> pa.Table:
        here = pc.binary_join_element_wise(table["shard_id"], table["sequence_number"], "/")
        return table.filter(pc.invert(pc.is_in(here, value_set=gone)))

    return change


def erase_somebody(folder: Path) -> list[tuple[str, str]]:
    """Erase whoever has most rows; return where these were accepted."""
    events = pa.concat_tables(pq.ParquetFile(file).read() for file in files(folder / "lake", "enriched"))
    whose = Counter(events["user_id"].to_pylist()).most_common(1)[0][0]
    Erasure(Lake(str(folder / "lake")), Person(whose), "ticket 4711", START)()
    theirs = events.filter(pc.equal(events["user_id"], whose)).select(["shard_id", "sequence_number"])
    return [(row["shard_id"], row["sequence_number"]) for row in theirs.to_pylist()]


def in_the_lake(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The files that hold each record."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for table in ("raw", "enriched", "rejected"):
        for file in files(folder / "lake", table):
            for one in origins(file):
                found[one].append(file)
    return found


@pytest.mark.parametrize("manifest", [True, False])
def test_rows_that_were_erased_are_not_lost(folder: Path, manifest: bool) -> None:
    gone = erase_somebody(folder)

    verdict = audited(folder) if manifest else audited(folder, manifests=[])

    assert len(gone) > 1
    assert not in_the_lake(folder).keys() & gone
    assert verdict.balanced, verdict.first
    assert verdict.totals["erased"] == (len(gone) if manifest else 0)


def test_a_loss_in_the_same_hour_and_shard_as_an_erase_is_named(folder: Path) -> None:
    gone = erase_somebody(folder)
    there = in_the_lake(folder)
    beside = min(one for one in there if one[0] == gone[0][0] and one > gone[0])
    for file in there[beside]:
        rewrite(file, without(beside))

    verdict = audited(folder)

    assert named(verdict, Kind.LOST) == named(verdict, Kind.NOT_IN_RAW) == {beside}
    assert verdict.differences == {Kind.LOST: 1, Kind.NOT_IN_RAW: 1}
    assert verdict.totals["erased"] == len(gone)


def test_an_erase_of_enriched_does_not_excuse_what_is_not_in_raw(folder: Path) -> None:
    """An erase that dies after the first of two tables has on record what it has done, and no more."""
    gone = erase_somebody(folder)
    for file in (folder / "lake" / "_erasures").rglob("part-*"):
        if pq.ParquetFile(file).read(["table"])["table"].to_pylist()[0] == "raw":
            file.unlink()

    verdict = audited(folder)

    assert named(verdict, Kind.NOT_IN_RAW) == set(gone)
    assert verdict.differences == {Kind.NOT_IN_RAW: len(gone)}
