"""A lake summed up for the dashboard, by period, country and event, so that a page can filter it by itself.

Whatever the size of the lake, the sums stay small: of many days the page sees weeks or months, of many countries the
largest and `other`, of regions, cities and customers the largest. What is shown of those is exact.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow.parquet as pq
from msgspec import Struct

from clickstream.errors import Refused, Unavailable
from connectors.lake import Lake, LakeFile

MEMORY: Final = "4GB"
PERIODS: Final = 45
COUNTRIES: Final = 40
LARGEST: Final = 500
"""How many regions, cities and customers are kept at most."""
ROWS: Final = 30_000
"""How many sums a picture may come with: of regions, cities and customers only so many are kept as fit."""

STEPS: Final = ("Search", "ViewContent", "AddToCart", "Purchase")
"""The funnel: a session (a user's events without a gap of more than 30 minutes) has come so far if it has these in
this order, whatever lies between. It belongs to the day and country of its first event."""

Locate = Callable[[Sequence[str], str], tuple[float, float] | None]
"""Says at which latitude and longitude a city is, by some addresses of it: rows of the lake carry neither."""

_COLUMNS: Final = (
    *("timestamp", "user_id", "event_name", "user_ip", "name", "country", "region", "city", "sequence_number"),
)


class Sums(Struct):
    """A table of sums: whole numbers, which are places in the lists beside it but for the last, a count."""

    columns: list[str]
    rows: list[list[int]]


class Answers(Struct, kw_only=True):
    """What the page knows. `unit` is day, week or month; a period goes by the name of its first day of arrival."""

    unit: str
    periods: list[str]
    countries: list[str]
    events: list[str]
    states: list[str]
    regions: list[tuple[str, str]]  # country and region
    cities: list[tuple[str, str, str, float | None, float | None]]  # country, region, city, latitude, longitude
    customers: list[tuple[str, str]]  # id and name, empty if it is not known
    by_event: Sums  # period, country, event, count
    by_state: Sums  # period, event, state, count
    by_region: Sums  # period, country, event, region, count
    by_city: Sums  # period, country, event, city, count
    by_customer: Sums  # period, country, event, customer, count
    by_depth: Sums  # period, country, steps of the funnel, sessions


def answers(lake: Lake, scratch: Path, locate: Locate) -> Answers:
    """Sum up what is committed now; a lake without events is `Refused`. DuckDB spills to `scratch`."""
    files = [file for file in lake.files("enriched") if file.size]
    if not files:
        raise Refused("the lake has no enriched events yet. Next: clickstream run, or name another lake with --lake")
    options: dict[str, Any] = {
        "memory_limit": MEMORY,
        "temp_directory": str(scratch / "spill"),
        "autoinstall_known_extensions": "0",
    }
    try:
        with duckdb.connect(config=options) as database:
            _show(database, [_on_disk(lake, file, scratch) for file in files])
            return _summed(database, locate)
    except (duckdb.IOException, FileNotFoundError) as error:  # replaced meanwhile, by a replay or an erase
        raise Unavailable(f"a file of the lake could not be read ({error}). Next: try again") from None


def _show(database: duckdb.DuckDBPyConnection, files: list[Path]) -> None:
    """Make the view `clicks` out of files, with the days they arrived by the names of their folders."""
    database.execute("SET TimeZone = 'UTC'")
    paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    database.execute(_CLICKS.format(paths=paths, columns=", ".join(f'"{name}"' for name in _COLUMNS)))
    database.execute("CREATE TABLE days AS SELECT DISTINCT day FROM clicks")


def _summed(database: duckdb.DuckDBPyConnection, locate: Locate) -> Answers:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        return database.execute(sql).fetchall()

    def names(table: str) -> list[str]:
        return [str(name) for (name,) in ask(f"SELECT name FROM {table} ORDER BY id")]

    def sums(sql: str) -> Sums:
        rows = [list(row) for row in ask(f"{sql} GROUP BY ALL ORDER BY ALL")]
        return Sums([name for name, *_ in database.description or ()], rows)

    def kept(table: str) -> Sums:
        one = {"regions": "region", "cities": "city", "customers": "customer"}[table]
        return sums(f"SELECT period, country, event, id AS {one}, sum(count)::BIGINT FROM {table}")

    unit = next(
        unit
        for unit in ("day", "week", "month", "year")
        if unit == "year" or ask(f"SELECT count(DISTINCT date_trunc('{unit}', day)) FROM days") <= [(PERIODS,)]
    )
    steps = ", ".join(f"'{step}'" for step in STEPS)
    database.execute(_DIMENSIONS.format(unit=unit, countries=COUNTRIES, steps=steps))
    for table, key in (("regions", "code, region"), ("cities", "code, region, city"), ("customers", "user_id")):
        given = {"regions": "region IS NOT NULL", "cities": "city IS NOT NULL", "customers": "true"}[table]
        database.execute(_KEPT.format(table=table, key=key, given=given, largest=LARGEST, rows=ROWS))
    cities = ask(_ADDRESSES)
    return Answers(
        unit=unit,
        periods=names("periods"),
        countries=names("countries"),
        events=names("events"),
        states=names("states"),
        regions=ask("SELECT DISTINCT ON (id) code, region FROM regions ORDER BY id"),
        cities=[(*city, *(locate(addresses, city[-1]) or (None, None))) for *city, addresses in cities],
        customers=ask(_CUSTOMERS),
        by_event=sums("SELECT period, country, event, count(*) AS count FROM clicked"),
        by_state=sums(
            "SELECT period, event, states.id AS state, count(*) AS count FROM clicked"
            " JOIN states ON code = 'US' AND region = states.name"
        ),
        by_region=kept("regions"),
        by_city=kept("cities"),
        by_customer=kept("customers"),
        by_depth=sums(_SESSIONS),
    )


def _on_disk(lake: Lake, file: LakeFile, scratch: Path) -> Path:
    """Return where DuckDB finds a file: what is in an S3 is copied, as far as it is needed."""
    if Path(file.path).is_file():
        return Path(file.path)
    copy = scratch / "copies" / file.path
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(lake.read(file, list(_COLUMNS)), copy)
    return copy


_CLICKS: Final = """
CREATE VIEW clicks AS
SELECT make_date(year::INT, month::INT, day::INT) AS day, {columns}
FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = true, hive_types_autocast = false)
"""

# `code` is a country's own, also where it counts as `other`.
_DIMENSIONS: Final = """
CREATE TABLE periods AS
SELECT row_number() OVER (ORDER BY first) - 1 AS id, strftime(first, '%Y-%m-%d') AS name, first
FROM (SELECT DISTINCT date_trunc('{unit}', day)::DATE AS first FROM days);

CREATE TABLE codes AS
SELECT code, least(row_number() OVER (ORDER BY count(*) DESC, code) - 1, {countries}) AS id
FROM (SELECT coalesce(country, 'unknown') AS code FROM clicks) GROUP BY code;

CREATE TABLE countries AS
SELECT id, CASE WHEN id < {countries} THEN any_value(code) ELSE 'other' END AS name FROM codes GROUP BY id;

CREATE TABLE events AS
SELECT row_number() OVER (ORDER BY coalesce(list_position([{steps}], name), 9), name) - 1 AS id, name
FROM (SELECT DISTINCT event_name AS name FROM clicks);

CREATE TABLE states AS
SELECT row_number() OVER (ORDER BY name) - 1 AS id, name
FROM (SELECT DISTINCT region AS name FROM clicks WHERE country = 'US' AND region IS NOT NULL);

CREATE VIEW clicked AS
SELECT clicks.*, codes.code, periods.id AS period, codes.id AS country, events.id AS event
FROM (SELECT * EXCLUDE (country), coalesce(country, 'unknown') AS code FROM clicks) AS clicks
JOIN codes USING (code)
JOIN events ON events.name = event_name
JOIN periods ON periods.first = date_trunc('{unit}', day)::DATE;
"""

_KEPT: Final = """
CREATE TABLE {table} AS
WITH counted AS (
  SELECT {key}, period, country, event, count(*) AS count FROM clicked WHERE {given} GROUP BY ALL
),
totals AS (
  SELECT *, sum(count) OVER (PARTITION BY {key}) AS total FROM counted
),
ranked AS (
  SELECT
    *,
    dense_rank() OVER (ORDER BY total DESC, {key}) - 1 AS id,
    count(*) OVER (ORDER BY total DESC, {key} RANGE UNBOUNDED PRECEDING) AS rows
  FROM totals
)
SELECT id, {key}, period, country, event, count
FROM ranked
WHERE id = 0 OR (id < {largest} AND rows <= {rows})
"""

_ADDRESSES: Final = """
SELECT code, coalesce(kept.region, ''), city, [min(user_ip), max(user_ip), any_value(user_ip)]
FROM clicked JOIN (SELECT DISTINCT id, code, region, city FROM cities) AS kept USING (code, city)
WHERE clicked.region IS NOT DISTINCT FROM kept.region
GROUP BY kept.id, code, kept.region, city
ORDER BY kept.id
"""

_CUSTOMERS: Final = """
SELECT user_id, coalesce(max(name), '')
FROM clicked JOIN (SELECT DISTINCT id, user_id FROM customers) AS kept USING (user_id)
GROUP BY kept.id, user_id
ORDER BY kept.id
"""

_SESSIONS: Final = """
WITH gaps AS (
  SELECT *, lag("timestamp") OVER (PARTITION BY user_id ORDER BY "timestamp", sequence_number) AS previous_at
  FROM clicked
),
numbered AS (
  -- Not count(*) FILTER (...) OVER: that takes DuckDB the square of a user's events.
  SELECT *, coalesce(sum(("timestamp" > previous_at + INTERVAL 30 MINUTE)::INT) OVER (
    PARTITION BY user_id ORDER BY "timestamp", sequence_number ROWS UNBOUNDED PRECEDING
  ), 0) AS session
  FROM gaps
),
paths AS (
  SELECT
    first(period ORDER BY "timestamp", sequence_number) AS period,
    first(country ORDER BY "timestamp", sequence_number) AS country,
    string_agg(left(event_name, 1), '' ORDER BY "timestamp", sequence_number) AS path
  FROM numbered
  GROUP BY user_id, session
)
SELECT
  period,
  country,
  CASE
    WHEN path LIKE '%S%V%A%P%' THEN 4
    WHEN path LIKE '%S%V%A%' THEN 3
    WHEN path LIKE '%S%V%' THEN 2
    WHEN path LIKE '%S%' THEN 1
    ELSE 0
  END AS depth,
  count(*) AS count
FROM paths
"""
