"""How good a lake's data is, counted by hand, and the limits that are broken."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analytics.local import LocalLake
from analytics.profile import Hour, Limits, Profile, broken, profile, read_limits
from cli.query import ALL_DAYS, days
from cli.servers import PROJECT
from clickstream.errors import Refused
from clickstream.schema import RAW, REJECTED
from connectors.lake import Lake
from tests.events import event
from tests.lakes import write_enriched

TEN, ELEVEN = "year=2026/month=01/day=05/hour=10", "year=2026/month=01/day=05/hour=11"


def records(numbers: range, hour: int, **columns: Any) -> list[dict[str, Any]]:
    at = datetime(2026, 1, 5, hour, 59, tzinfo=UTC)
    return [
        {"payload": b"x", "arrival_timestamp": at, "shard_id": "s", "sequence_number": str(number), **columns}
        for number in numbers
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLake]:
    """Ten o'clock is as it should be; at eleven one record is lost, one is there twice, and one click came twice."""
    folder = tmp_path_factory.mktemp("profile")
    good = [
        {**event(timestamp="2026-01-05 10:00:00", click_id=f"c{n}"), "shard_id": "s", "sequence_number": str(n)}
        for n in range(8)
    ]
    good[0] |= {"geo_status": "unknown", "name_status": "pending"}
    bad = [
        {**event(timestamp="2026-01-05 11:00:00", click_id="same"), "shard_id": "s", "sequence_number": number}
        for number in ("20", "21", "21")
    ]
    write_enriched(folder, [*good, *bad])
    files = Lake(str(folder))
    two = [{"reason": "empty"}, {"reason": "bad_ip"}]
    rejected = [{**record, **why} for record, why in zip(records(range(8, 10), 10), two, strict=True)]
    files.write("rejected", TEN, "part-0", pa.Table.from_pylist(rejected, REJECTED))
    files.write("raw", TEN, "part-0", pa.Table.from_pylist(records(range(10), 10), RAW))
    files.write("raw", ELEVEN, "part-0", pa.Table.from_pylist(records(range(20, 23), 11), RAW))
    with LocalLake(files, folder / "scratch", objects=folder) as local:
        yield local


def test_each_hour_is_what_a_person_counts(lake: LocalLake) -> None:
    found = profile(lake, ALL_DAYS, datetime(2026, 1, 5, 12, 29, tzinfo=UTC))

    assert found.freshness_minutes == 30
    assert found.hours == [
        Hour(
            hour="2026-01-05 10:00",
            enriched=8,
            rejected=2,
            suppressed=0,
            raw=10,
            completeness=1.0,
            unknown_place_share=0.125,
            unknown_name_share=0.125,
            rejected_share=0.2,
            rejected_reasons={"bad_ip": 1, "empty": 1},
            duplicate_records=0,
            duplicate_click_share=0.0,
        ),
        Hour(
            hour="2026-01-05 11:00",
            enriched=3,
            rejected=0,
            suppressed=0,
            raw=3,
            completeness=2 / 3,
            unknown_place_share=0.0,
            unknown_name_share=0.0,
            rejected_share=0.0,
            rejected_reasons={},
            duplicate_records=1,
            duplicate_click_share=2 / 3,
        ),
    ]


def test_what_is_suppressed_has_come_out_too(tmp_path: Path) -> None:
    files = Lake(str(tmp_path))
    files.write("suppressed", TEN, "part-0", pa.Table.from_pylist(records(range(3), 10), RAW))
    files.write("raw", TEN, "part-0", pa.Table.from_pylist(records(range(4), 10), RAW))
    with LocalLake(files, tmp_path / "scratch", objects=tmp_path) as local:
        (hour,) = profile(local, ALL_DAYS, datetime.now(UTC)).hours

    assert (hour.suppressed, hour.raw, hour.completeness, hour.unknown_place_share) == (3, 4, 0.75, None)


def test_without_an_archive_nobody_knows_what_is_missing(tmp_path: Path) -> None:
    files = write_enriched(tmp_path, [event()])
    with LocalLake(files, tmp_path / "scratch", objects=tmp_path) as local:
        (hour,) = profile(local, ALL_DAYS, datetime.now(UTC)).hours

    assert (hour.enriched, hour.raw, hour.completeness) == (1, None, None)


def test_a_lake_without_anything_has_no_hours(tmp_path: Path) -> None:
    with LocalLake(Lake(str(tmp_path)), tmp_path / "scratch", objects=tmp_path) as local:
        assert profile(local, ALL_DAYS, datetime.now(UTC)) == Profile(freshness_minutes=None, hours=[])


def test_only_the_days_asked_for_are_measured(lake: LocalLake) -> None:
    assert profile(lake, days("2026-01-06", None), datetime.now(UTC)).hours == []


@pytest.mark.parametrize(
    ("limits", "sentences"),
    [
        (Limits(), []),
        (Limits(freshness_minutes=31, completeness=0.6, duplicate_records=1), []),
        (Limits(freshness_minutes=29), ["freshness_minutes is 30.0, 29 are the limit"]),
        (Limits(completeness=1.0), ["completeness is 0.666667 in 2026-01-05 11:00, 1 is the limit"]),
        (Limits(rejected_share=0.1), ["rejected_share is 0.2 in 2026-01-05 10:00, 0.1 is the limit"]),
        (
            Limits(rejected_reasons={"empty": 0.05, "bad_ip": 0.1, "not_utf8": 0.0}),
            ["rejected_reasons.empty is 0.1 in 2026-01-05 10:00, 0.05 is the limit"],
        ),
        (Limits(duplicate_records=0), ["duplicate_records is 1 in 2026-01-05 11:00, 0 is the limit"]),
        (
            Limits(unknown_place_share=0, duplicate_click_share=0.5),
            [
                "unknown_place_share is 0.125 in 2026-01-05 10:00, 0 is the limit",
                "duplicate_click_share is 0.666667 in 2026-01-05 11:00, 0.5 is the limit",
            ],
        ),
    ],
)
def test_a_limit_that_is_broken_is_named_with_its_hour(lake: LocalLake, limits: Limits, sentences: list[str]) -> None:
    found = profile(lake, ALL_DAYS, datetime(2026, 1, 5, 12, 29, tzinfo=UTC))

    assert broken(found, limits) == sentences


def test_nothing_at_all_is_not_fresh() -> None:
    assert broken(Profile(freshness_minutes=None, hours=[]), Limits(freshness_minutes=5)) == [
        "freshness_minutes: nothing has arrived, 5 are the limit"
    ]


def test_the_file_that_comes_with_the_platform_sets_every_limit() -> None:
    limits = read_limits(PROJECT / "analytics" / "thresholds.yaml")

    assert all(getattr(limits, name) is not None for name in limits.__struct_fields__)


@pytest.mark.parametrize(
    "text", ["rejected_shore: 0.1", "completeness: 2", "completeness: high", "- 1", "a: [", "\x00"]
)
def test_a_file_that_sets_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "limits.yaml").write_text(text)

    with pytest.raises(Refused, match=r"limits\.yaml"):
        read_limits(tmp_path / "limits.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="check the path"):
        read_limits(tmp_path / "limits.yaml")
