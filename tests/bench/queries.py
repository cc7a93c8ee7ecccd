"""How long each query takes on a lake of millions of events, and how much memory: `make bench-queries`."""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from analytics.local import LocalLake
from analytics.profile import profile
from cli import screen
from cli.query import ALL_DAYS, find_query, queries
from cli.setup import DATA
from connectors.lake import Lake
from tests.bench.measure import machine

FIRST, DAYS = date(2026, 1, 5), 28
# A session is eight events of one user, a quarter of a minute apart; the day's sessions begin at even distances.
DAY = """
  SELECT
    clicked_at AS timestamp, session_user AS user_id, 'p' || session_user AS pixel_id, md5(n::VARCHAR) AS click_id,
    clicked_at AS insertion_timestamp,
    (['Search', 'Search', 'Search', 'ViewContent', 'ViewContent', 'ViewContent', 'AddToCart', 'Purchase'])
      [1 + (hash(n) % 8)::INTEGER] AS event_name,
    '10.0.' || n % 256 || '.' || n % 251 AS user_ip,
    {'time_on_data': (hash(n, 1) % 180)::DOUBLE, 'percent_viewed': (hash(n, 2) % 1001) / 10,
     'product_id': 100000 + (hash(n, 3) % 5000)::BIGINT, 'price': (hash(n, 3) % 50000) / 100} AS additional_data,
    'Name ' || session_user AS name,
    (['US', 'DE', 'FR', 'IN', 'JP', NULL])[1 + (hash(session_user) % 6)::INTEGER] AS country,
    'Region' AS region, 'City' AS city, 'found' AS geo_status, 'found' AS name_status,
    clicked_at + INTERVAL 1 SECOND AS arrival_timestamp, 'shardId-' || lpad((n % 4)::VARCHAR, 12, '0') AS shard_id,
    '4959033827149' || lpad(n::VARCHAR, 43, '0') AS sequence_number,
    strftime(clicked_at, '%Y') AS year, strftime(clicked_at, '%m') AS month,
    strftime(clicked_at, '%d') AS day, strftime(clicked_at, '%H') AS hour
  FROM (
    SELECT
      n,
      (hash(n // 8) % $users)::VARCHAR AS session_user,
      $day::TIMESTAMP + to_microseconds((n - $first) // 8 * (86300000000 * 8 // $count)) + to_seconds(15 * (n % 8))
        AS clicked_at
    FROM range($first, $first + $count) AS numbers (n)
  )
"""


def main() -> None:
    """Make a lake, or find that of an earlier run, and time each query in a process of its own."""
    parser = argparse.ArgumentParser(prog="make bench-queries", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="in the lake [%(default)s]")
    parser.add_argument("--users", type=int, default=100_000, help="how many shoppers there are [%(default)s]")
    parser.add_argument("--memory", default="4GB", help="for DuckDB [%(default)s]")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = DATA / "bench" / f"lake-{given.events}-of-{given.users}"
    if given.one:
        print(json.dumps(measured(given.one, folder, given)))
        return
    make_lake(folder, given)
    rows = []
    with screen.progress() as progress:
        for name in [*sorted((query.name for query in queries()), key=lambda name: name.startswith("load")), "profile"]:
            progress.show(f"asking: {name}")
            rows.append(in_a_process(name))
    screen.table(
        f"{given.events:,} events of {given.users:,} users, --memory {given.memory}, {machine('duckdb', 'sqlglot')}",
        ["query", "seconds", "peak MB", "rows"],
        rows,
        right=(1, 2, 3),
    )


def make_lake(folder: Path, given: argparse.Namespace) -> None:
    """Write so many events, day by day, as the job does: a file an hour, in its folder."""
    if (folder / "_done").exists():
        return
    table = folder / "lake" / "enriched"
    table.mkdir(parents=True, exist_ok=True)
    count = given.events // DAYS // 8 * 8
    with duckdb.connect(config={"memory_limit": given.memory}) as connection, screen.progress() as progress:
        for number in range(DAYS):
            values = {"users": given.users, "first": number * count, "count": count}
            sql = DAY.replace("$day", f"'{FIRST + timedelta(days=number)}'")
            for name, value in values.items():
                sql = sql.replace(f"${name}", str(value))
            connection.execute(
                f"COPY ({sql}) TO '{table}' (FORMAT parquet, COMPRESSION snappy, PARTITION_BY (year, month, day, hour),"
                f" FILENAME_PATTERN 'part-{number}-{{i}}', OVERWRITE_OR_IGNORE)"
            )
            progress.show(f"making events: {count * (number + 1):,} of {given.events:,}")
    (folder / "_done").touch()


def in_a_process(name: str) -> list[Any]:
    """Measure in a process of its own, whose peak of memory is that query's alone."""
    command = [sys.executable, "-m", "tests.bench.queries", *sys.argv[1:], "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    return list(json.loads(done.stdout))


def measured(name: str, folder: Path, given: argparse.Namespace) -> list[Any]:
    """Run one query, or the profile: its seconds without those of Python starting, its peak of memory, its rows."""
    people = [str(number) for number in range(given.users)]
    with (
        TemporaryDirectory(dir=folder) as scratch,
        LocalLake(
            Lake(str(folder / "lake")),
            Path(scratch),
            objects=Path(scratch),
            # Users as Redis and MySQL would give them, less the time that those take.
            redis=lambda: ({"_key_": f"user:{one}", "location": "City, Region, US"} for one in people),
            customers=lambda: ({"customer_id": one, "price_per_click": Decimal(1)} for one in people),
            memory=given.memory,
        ) as lake,
    ):
        began = time.perf_counter()
        if name == "profile":
            rows = len(profile(lake, ALL_DAYS, datetime.now(UTC)).hours)
        else:
            query = find_query(name)
            values = {**ALL_DAYS, "lake": str(folder), "glue_database": "clickstream"}
            rows = lake.ask(query.text, query.dialect, values).count
        seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()  # getrusage would tell of the process that started this one, too
    peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    return [name, f"{seconds:.1f}", peak, rows]


if __name__ == "__main__":
    main()
