"""What the benchmark makes of its measurements."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from deploy.cost import read_prices
from tests.bench.equal import unlike
from tests.bench.growth import windows
from tests.bench.job import between_commits
from tests.bench.kpu import BUSY, kpu
from tests.bench.measure import Cost, Memory, Point, between, in_turn, median, watch


def point(processed: int, at: float = 0, memory: Memory = Memory(), **cpu: float) -> Point:  # noqa: B008  # immutable
    return Point(at, processed, {"jvm": 0.0, "python": 0.0, "redis": 0.0, **cpu}, memory)


def test_a_cost_is_what_lies_between_two_points_and_not_what_came_before() -> None:
    points = [
        point(100, at=50, jvm=40, python=7, memory=Memory(3, 2)),
        point(150, at=51, memory=Memory(9, 1)),
        point(300, at=52, jvm=41, python=7.5),
    ]

    cost = between(points)

    assert (cost.events, cost.rate, cost.memory) == (200, 100, Memory(9, 2))
    assert cost.micros("jvm") == pytest.approx(1 / 200 * 1e6)
    assert cost.micros() == pytest.approx(1.5 / 200 * 1e6)
    assert cost.per_core == pytest.approx(200 / 1.5)


def test_everyone_runs_once_before_anyone_runs_again() -> None:
    order: list[str] = []

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    results = in_turn("abc", 2, run)

    assert order == ["a", "b", "c", "a", "b", "c"]
    assert results == [[1, 4], [2, 5], [3, 6]]


def test_a_median_shows_how_far_the_runs_are_apart_if_there_are_several() -> None:
    assert median([30_000.4]) == "30,000"
    assert median([3, 1, 200]) == "3 (1–200)"
    assert median([3, 1, 200], ".1f", spread=False) == "3.0"


def test_the_last_commit_and_what_is_before_the_first_third_do_not_count() -> None:
    points = [point(0), point(10), point(15), point(25), point(40), point(40)]

    assert [one.processed for one in between_commits(points)] == [15, 25]


def test_a_run_is_looked_at_whenever_it_has_come_further_and_when_it_has_ended() -> None:
    said = iter([-1, -1, 0, 0, 7, 7])
    going = iter([True, True, True, True, True, False])

    points = list(watch([], 1, lambda: next(said), lambda: next(going)))

    assert [one.processed for one in points] == [0, 7, 7]


def test_windows_grow_with_the_run() -> None:
    points = [point(number * 10, at=number) for number in range(1, 11)]

    parts = windows(points)

    assert [(one.so_far, one.cost.events) for one in parts] == [
        (20, 10),
        (30, 10),
        (40, 10),
        (50, 10),
        (70, 20),
        (90, 20),
    ]


def test_rows_are_equal_in_any_order_and_in_any_spelling_of_a_moment() -> None:
    here = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))

    assert unlike("row", [{"a": 1}, {"t": datetime(2026, 1, 1, tzinfo=UTC)}], [{"t": here}, {"a": 1}]) == []


@pytest.mark.parametrize("wrong", [{"a": 1.0}, {"a": True}, {"a": None}, {"a": 2}, {"b": 1}, {"a": 1, "b": None}])
def test_a_row_of_another_type_value_or_column_is_another_row(wrong: dict[str, object]) -> None:
    (missing, extra) = unlike("row", [{"a": 1}], [wrong])

    assert missing == "row a=1 is missing"
    assert extra.endswith("should not be there")


def test_a_row_that_is_there_twice_is_once_too_often() -> None:
    assert unlike("row", [{"a": 1}], [{"a": 1}, {"a": 1}]) == ["row a=1 should not be there"]


def test_a_kpu_is_sized_by_what_runs_on_it() -> None:
    prices = read_prices()
    cost = Cost(1_000_000, 20, {"jvm": 10.0, "python": 10.0, "redis": 1000.0})

    found = kpu(cost, prices)

    assert found.rate == pytest.approx(BUSY * 50_000)
    assert found.shards == 29  # of 700 records a second each
    assert found.flink_dollars == pytest.approx((0.11 + 50 * 0.10 / 730) / (found.rate * 3600 / 1e6))
    assert found.kinesis_dollars == pytest.approx(29 * 0.015 / (found.rate * 3600 / 1e6) + 0.014)
