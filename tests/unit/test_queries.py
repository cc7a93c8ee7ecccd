"""Each query's exact answer on a lake small enough to check by hand, and the same asked of plain Python."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlglot

from analytics.dialects import split
from analytics.local import LocalLake
from cli.query import ALL_DAYS, days, find_query, queries
from clickstream.errors import Refused
from clickstream.offer import HIGH_INTENT_PERCENT
from generator.shoppers import Shoppers
from tests.events import event
from tests.lakes import write_enriched

HAND_LAKE = [  # Monday is 5 January 2026
    ("2026-01-05 10:00:00", "ada", "Search", 101, 10.00, 20, 5, "DE"),
    ("2026-01-05 10:01:00", "ada", "ViewContent", 101, 10.00, 80, 60, "DE"),  # an offer
    ("2026-01-05 10:05:00", "ada", "AddToCart", 101, 10.00, 50, 10, "DE"),
    ("2026-01-05 10:10:00", "ada", "Purchase", 101, 10.00, 50, 30, "DE"),
    ("2026-01-05 10:40:00", "ada", "Search", 102, 25.50, 10, 3, "DE"),  # 30 minutes later: the same session
    ("2026-01-05 11:10:00.000001", "ada", "Search", 103, 5.25, 10, 4, "DE"),  # a microsecond more: the next
    ("2026-01-12 09:00:00", "ada", "ViewContent", 102, 25.50, 61, 20, "FR"),  # an offer
    ("2026-01-13 09:00:00", "ada", "Purchase", 102, 25.50, 40, 8, "FR"),  # 24 hours after it
    ("2026-01-05 23:50:00", "bob", "Search", 101, 10.00, 0, 1, None),
    ("2026-01-06 00:05:00", "bob", "ViewContent", 101, 10.00, 60, 15, None),  # no offer, it takes more than 60
    ("2026-01-06 00:20:00", "bob", "AddToCart", 101, 10.00, 30, 20, None),
    ("2026-01-19 08:00:00", "bob", "Search", 102, 25.50, 10, 2, None),
    ("2026-01-19 08:00:00", "bob", "Search", 103, 5.25, 10, 6, None),  # accepted later
    ("2026-01-06 12:00:00", "cyd", "ViewContent", 103, 5.25, 90, 100, "US"),  # an offer
    ("2026-01-06 12:00:30", "cyd", "Purchase", 101, 10.00, 30, 7, "US"),  # of something else
    ("2026-01-12 12:00:00", "cyd", "Search", 101, 10.00, 10, 7, "US"),
    ("2026-01-12 12:01:00", "cyd", "AddToCart", 101, 10.00, 10, 30, "US"),  # without a view before
    ("2026-01-12 12:02:00", "cyd", "ViewContent", 101, 10.00, 70, 5, "US"),  # an offer
    ("2026-01-12 12:03:00", "cyd", "Purchase", 101, 10.00, 10, 15, "US"),
    ("2026-01-07 05:00:00", "eve", "Search", 101, 10.00, 10, 8, None),
    ("2026-01-18 23:59:59.500000", "dan", "Search", 103, 5.25, 10, 9, "US"),  # Sunday
    ("2026-01-19 00:00:00.500000", "dan", "ViewContent", 103, 5.25, 10, 1, "US"),  # Monday
]
REDIS = [
    {"_key_": "user:ada", "last_access": "2026-01-13 09:00:00.000000", "location": "Paris, Île-de-France, FR"},
    {"_key_": "user:bob", "last_access": "2026-01-19 08:00:00.000000", "location": "unknown", "last_sequence": "13"},
    {"_key_": "user:zoe", "name": "Zoe, who has never searched"},
]
CUSTOMERS = [
    {"customer_id": "ada", "pixel_id": "p", "name": "Ada", "price_per_click": Decimal("0.25")},
    {"customer_id": "cyd", "pixel_id": "q", "name": "Cyd", "price_per_click": Decimal("1.5")},
]


def day(of_january: int) -> date:
    return date(2026, 1, of_january)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-01-{text}")


ANSWERS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "events_per_name": (
        ["event_name", "events", "users", "share"],
        [
            ("Search", 9, 5, 9 / 22),
            ("ViewContent", 6, 4, 6 / 22),
            ("Purchase", 4, 2, 4 / 22),
            ("AddToCart", 3, 3, 3 / 22),
        ],
    ),
    "sessions": (
        ["day", "sessions", "users", "mean_events", "mean_seconds", "one_event_share"],
        [
            (day(5), 3, 2, 3.0, 1400.0, 1 / 3),
            (day(6), 1, 1, 2.0, 30.0, 0.0),
            (day(7), 1, 1, 1.0, 0.0, 1.0),
            (day(12), 2, 2, 2.5, 90.0, 0.5),
            (day(13), 1, 1, 1.0, 0.0, 1.0),
            (day(18), 1, 1, 2.0, 1.0, 0.0),
            (day(19), 1, 1, 2.0, 0.0, 0.0),
        ],
    ),
    "funnel": (
        ["step", "event_name", "sessions", "from_previous", "from_first"],
        [
            (1, "Search", 7, None, 1.0),
            (2, "ViewContent", 4, 4 / 7, 4 / 7),
            (3, "AddToCart", 2, 0.5, 2 / 7),
            (4, "Purchase", 1, 0.5, 1 / 7),
        ],
    ),
    "top_products_by_views": (
        ["product_id", "views", "viewers", "mean_percent_viewed"],
        [(101, 3, 3, 70.0), (103, 2, 2, 50.0), (102, 1, 1, 61.0)],
    ),
    "top_products_by_revenue": (
        ["product_id", "revenue", "purchases", "buyers"],
        [(101, 30.0, 3, 2), (102, 25.5, 1, 1)],
    ),
    "time_on_page": (
        ["event_name", "events", "mean_seconds", "median_seconds", "p90_seconds"],
        [
            ("AddToCart", 3, 20.0, 20.0, 30.0),
            ("Purchase", 4, 15.0, 8.0, 30.0),
            ("Search", 9, 5.0, 5.0, 9.0),
            ("ViewContent", 6, 33.5, 15.0, 100.0),
        ],
    ),
    "repeat_visitors": (
        ["day", "visitors", "new_visitors", "repeat_visitors", "repeat_share"],
        [
            (day(5), 2, 2, 0, 0.0),
            (day(6), 2, 1, 1, 0.5),
            (day(7), 1, 1, 0, 0.0),
            (day(12), 2, 0, 2, 1.0),
            (day(13), 1, 0, 1, 1.0),
            (day(18), 1, 1, 0, 0.0),
            (day(19), 2, 0, 2, 1.0),
        ],
    ),
    "cohort_retention": (
        ["cohort_week", "weeks_after", "users", "cohort_users", "retained"],
        [
            (day(5), 0, 4, 4, 1.0),
            (day(5), 1, 2, 4, 0.5),
            (day(5), 2, 1, 4, 0.25),
            (day(12), 0, 1, 1, 1.0),
            (day(12), 1, 1, 1, 1.0),
        ],
    ),
    "activity_by_hour": (
        ["hour_of_day", "events", "users", "purchases"],
        [(hour, *{0: (3, 2, 0), 5: (1, 1, 0), 8: (2, 1, 0), 9: (2, 1, 1)}.get(hour, (0, 0, 0))) for hour in range(10)]
        + [(10, 5, 1, 1), (11, 1, 1, 0), (12, 6, 1, 2)]
        + [(hour, 0, 0, 0) for hour in range(13, 23)]
        + [(23, 2, 2, 0)],
    ),
    "offers_followed_by_purchase": (
        ["day", "offers", "followed_by_any", "followed_by_product", "taken_share", "mean_hours"],
        [
            (day(5), 1, 1, 1, 1.0, 0.15),
            (day(6), 1, 1, 0, 0.0, None),
            (day(12), 2, 2, 2, 1.0, pytest.approx((24 + 1 / 60) / 2)),
        ],
    ),
    "federated_report": (
        [
            *("user_id", "searched_at", "product_id", "price", "percent_viewed", "time_on_data"),
            *("last_access", "location", "price_per_click"),
        ],
        [
            (
                *("ada", at("05 11:10:00.000001"), 103, 5.25, 10.0, 4.0),
                *("2026-01-13 09:00:00.000000", "Paris, Île-de-France, FR", Decimal("0.25")),
            ),
            ("bob", at("19 08:00:00"), 103, 5.25, 10.0, 6.0, "2026-01-19 08:00:00.000000", "unknown", None),
            ("cyd", at("12 12:00:00"), 101, 10.0, 10.0, 7.0, None, None, Decimal("1.5")),
            ("dan", at("18 23:59:59.500000"), 103, 5.25, 10.0, 9.0, None, None, None),
            ("eve", at("07 05:00:00"), 101, 10.0, 10.0, 8.0, None, None, None),
        ],
    ),
    "count_by_event_name": (
        ["event_name", "events"],
        [("Search", 9), ("ViewContent", 6), ("Purchase", 4), ("AddToCart", 3)],
    ),
    "load_by_country_and_event_name": (
        ["country", "event_name", "events", "users"],
        [
            ("DE", "AddToCart", 1, 1),
            ("DE", "Purchase", 1, 1),
            ("DE", "Search", 3, 1),
            ("DE", "ViewContent", 1, 1),
            ("FR", "Purchase", 1, 1),
            ("FR", "ViewContent", 1, 1),
            ("US", "AddToCart", 1, 1),
            ("US", "Purchase", 2, 1),
            ("US", "Search", 2, 2),
            ("US", "ViewContent", 3, 2),
            ("unknown", "AddToCart", 1, 1),
            ("unknown", "Search", 4, 2),
            ("unknown", "ViewContent", 1, 1),
        ],
    ),
}
SAID = {
    "external_schema": "schema lake shows enriched, flattened, rejected, raw",
    "unload_by_country_and_event_name": "13 rows are in {s3}/my-lake/unloads/by_country_and_event_name/events_000.csv",
}
UNLOADED = "country|event_name|events|users\n" + "".join(
    f"{'|'.join(map(str, row))}\n" for row in ANSWERS["load_by_country_and_event_name"][1]
)


def hand_events() -> Iterator[dict[str, Any]]:
    for moment, user, name, product, price, percent, seconds, country in HAND_LAKE:
        content = {"product_id": product, "price": price, "percent_viewed": percent, "time_on_data": seconds}
        made = event(timestamp=moment, insertion_timestamp=moment, user_id=user, event_name=name, **content)
        yield {**made, "country": country}


@pytest.fixture(scope="module")
def hand_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLake]:
    folder = tmp_path_factory.mktemp("hand")
    lake = write_enriched(folder / "lake", hand_events())
    with LocalLake(
        lake, folder, objects=folder / "s3", redis=lambda: REDIS, customers=lambda: CUSTOMERS, memory="500MB"
    ) as local:
        yield local


def ask(local: LocalLake, name: str, **values: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    query = find_query(name)
    answer = local.ask(
        query.text, query.dialect, {**ALL_DAYS, "lake": "s3://my-lake", "glue_database": "shop", **values}
    )
    return answer.columns, list(answer.rows())


def test_every_query_has_its_answer_here() -> None:
    assert {query.name for query in queries()} == ANSWERS.keys() | SAID.keys()


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.name)
def test_every_query_parses_in_its_own_dialect_and_opens_with_a_sentence(query: Any) -> None:
    for statement in split(query.text, query.dialect):
        if not statement.startswith(("UNLOAD", "CREATE EXTERNAL")):  # which sqlglot leaves unread
            sqlglot.parse_one(statement, read=query.dialect, error_level=sqlglot.ErrorLevel.RAISE)

    assert query.comment.endswith(".")
    assert query.comment[0].isupper()


@pytest.mark.parametrize("name", [name for name in ANSWERS if not name.startswith("load_")])
def test_the_answer_is_what_a_person_counts(hand_lake: LocalLake, name: str) -> None:
    assert ask(hand_lake, name) == ANSWERS[name]


def test_an_external_schema_is_there_anyway(hand_lake: LocalLake) -> None:
    query = find_query("external_schema")

    assert hand_lake.ask(query.text, query.dialect, {"glue_database": "shop"}).said == SAID["external_schema"]


def test_what_is_unloaded_can_be_loaded_back_as_often_as_one_likes(hand_lake: LocalLake, tmp_path: Path) -> None:
    unload = find_query("unload_by_country_and_event_name")
    values = {**ALL_DAYS, "lake": str(tmp_path)}

    said = [hand_lake.ask(unload.text, unload.dialect, values).said for _ in range(2)]
    loaded = [ask(hand_lake, "load_by_country_and_event_name", lake=str(tmp_path)) for _ in range(2)]

    file = tmp_path / "unloads" / "by_country_and_event_name" / "events_000.csv"
    assert said == [f"13 rows are in {file}"] * 2
    assert file.read_text() == UNLOADED
    assert loaded == [ANSWERS["load_by_country_and_event_name"]] * 2


def test_what_is_unloaded_to_s3_is_in_a_folder_of_its_own(tmp_path: Path) -> None:
    lake = write_enriched(tmp_path / "lake", hand_events())
    query = find_query("unload_by_country_and_event_name")
    with LocalLake(lake, tmp_path, objects=tmp_path / "s3") as local:
        said = local.ask(query.text, query.dialect, {**ALL_DAYS, "lake": "s3://my-lake"}).said

    assert said == SAID["unload_by_country_and_event_name"].format(s3=tmp_path / "s3")


def test_only_the_days_asked_for_count_and_they_are_those_of_arrival(hand_lake: LocalLake) -> None:
    _, rows = ask(hand_lake, "events_per_name", **days("2026-01-06", "2026-01-07"))

    assert {name: events for name, events, *_ in rows} == {"Purchase": 1, "Search": 1, "AddToCart": 1, "ViewContent": 2}


def test_the_offers_query_and_the_job_mean_the_same_by_an_offer() -> None:
    assert f"percent_viewed > {HIGH_INTENT_PERCENT}\n" in find_query("offers_followed_by_purchase").text


@pytest.mark.parametrize("name", ANSWERS.keys() - {"load_by_country_and_event_name"})
def test_a_lake_without_events_is_answered_too(tmp_path: Path, name: str) -> None:
    lake = write_enriched(tmp_path / "lake", [])
    with LocalLake(lake, tmp_path, objects=tmp_path, redis=list, customers=list) as local:
        columns, rows = ask(local, name)

    assert columns == ANSWERS[name][0]
    assert all(not any(row[2:4]) for row in rows)  # 24 hours and four steps of nothing


# The same questions, answered without SQL

Click = tuple[str, datetime, str]  # user, moment, event name


@pytest.fixture(scope="module")
def clicks() -> list[Click]:
    made = islice(Shoppers(5, users=60, per_second=0.004, start=datetime(2026, 2, 27)), 6000)
    return [(one["user_id"], datetime.fromisoformat(one["timestamp"]), one["event_name"]) for one in made]


@pytest.fixture(scope="module")
def generated_lake(clicks: list[Click], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLake]:
    folder = tmp_path_factory.mktemp("generated")
    made = (
        event(user_id=user, timestamp=str(moment), insertion_timestamp=str(moment), event_name=name)
        for user, moment, name in clicks
    )
    lake = write_enriched(folder / "lake", made)
    with LocalLake(lake, folder, objects=folder / "s3") as local:
        yield local


def sessions_of(clicks: list[Click]) -> list[list[Click]]:
    sessions: list[list[Click]] = []
    for click in sorted(clicks, key=lambda click: click[:2]):
        same = sessions and sessions[-1][-1][0] == click[0]
        if not same or click[1] - sessions[-1][-1][1] > timedelta(minutes=30):
            sessions.append([])
        sessions[-1].append(click)
    return sessions


def test_sessions_are_those_that_python_counts(generated_lake: LocalLake, clicks: list[Click]) -> None:
    by_day: dict[date, list[list[Click]]] = defaultdict(list)
    for session in sessions_of(clicks):
        by_day[session[0][1].date()].append(session)

    _, rows = ask(generated_lake, "sessions")

    assert len(rows) > 10
    assert rows == [
        (
            day,
            len(some),
            len({session[0][0] for session in some}),
            pytest.approx(sum(map(len, some)) / len(some)),
            pytest.approx(sum((s[-1][1] - s[0][1]).total_seconds() for s in some) / len(some), abs=0.001),
            pytest.approx(sum(len(session) == 1 for session in some) / len(some)),
        )
        for day, some in sorted(by_day.items())
    ]


def test_the_funnel_is_the_one_that_python_walks(generated_lake: LocalLake, clicks: list[Click]) -> None:
    steps = ["Search", "ViewContent", "AddToCart", "Purchase"]
    reached: Counter[str] = Counter()
    for session in sessions_of(clicks):
        left = list(steps)
        for _, _, name in session:
            if left and name == left[0]:
                reached[left.pop(0)] += 1

    _, rows = ask(generated_lake, "funnel")

    assert [(name, sessions) for _, name, sessions, *_ in rows] == [(name, reached[name]) for name in steps]
    assert reached["Purchase"] > 10
    for (*_, before, _, _), (*_, sessions, from_previous, from_first) in pairwise(rows):
        assert from_previous == pytest.approx(sessions / before)
        assert from_first == pytest.approx(sessions / reached["Search"])


def test_retention_is_the_one_that_python_counts(generated_lake: LocalLake, clicks: list[Click]) -> None:
    weeks: Mapping[str, set[date]] = defaultdict(set)
    for user, moment, _ in clicks:
        weeks[user].add(moment.date() - timedelta(days=moment.weekday()))
    cohorts: dict[date, list[set[date]]] = defaultdict(list)
    for seen in weeks.values():
        cohorts[min(seen)].append(seen)

    _, rows = ask(generated_lake, "cohort_retention")

    expected = []
    for first, members in sorted(cohorts.items()):
        for after in range(60):
            there = sum(first + timedelta(weeks=after) in seen for seen in members)
            if there:
                expected.append((first, after, there, len(members), pytest.approx(there / len(members))))
    assert len(expected) > 5
    assert rows == expected


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nothing FROM enriched", "nothing"),
        ("SELECT * FROM no_such_table", "no_such_table"),
        ("SELEC 1", "not SQL as Athena knows it"),
        ("SELECT 'open", "not SQL as Athena knows it"),
        ("SELECT 1, 2 AS a, 3 AS a", "same name"),
        ("MSCK REPAIR TABLE enriched", "for AWS alone"),
        ("SELECT ? AS one_day", "two ?"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(hand_lake: LocalLake, sql: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        hand_lake.ask(sql, "athena", ALL_DAYS)
