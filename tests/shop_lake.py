"""A lake of made-up clicks for the dashboard's tests, and its pictures counted in plain Python."""

import random
import struct
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from clickstream.schema import ENRICHED
from connectors.lake import Lake
from tests.contract.test_geo_providers import mmdb
from tests.events import EXAMPLE

STEPS = ("Search", "ViewContent", "AddToCart", "Purchase")
EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
PLACES = [
    ("US", "Illinois", "Chicago"),
    ("US", "California", "San Jose"),
    ("US", "California", None),
    ("US", None, None),
    ("GB", "England", "London"),
    ("GB", "Scotland", "Edinburgh"),
    ("DE", "Bavaria", EVIL),
    (None, None, None),
]
COORDINATES = {"Chicago": (41.85, -87.65), "San Jose": (37.33, -121.89), "London": (51.5, -0.12), EVIL: (48.1, 11.6)}
NAMES = {"1": "Ada Lovelace", "2": EVIL, "3": "美咲", "4": None}
DAYS = [datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)]


class Click(NamedTuple):
    day: str
    at: datetime
    user: str
    event: str
    place: tuple[str | None, str | None, str | None]
    sequence: str


def clicks(count: int = 600, seed: int = 1) -> list[Click]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        day = chance.choice(DAYS)
        at = day + timedelta(minutes=chance.randrange(0, 1200))
        event = chance.choices(STEPS, (5, 4, 3, 2))[0]
        place = chance.choice(PLACES)
        made.append(Click(f"{day:%Y-%m-%d}", at, chance.choice(list(NAMES)), event, place, f"{number:06d}"))
    return made


def write(lake: Lake, made: Iterable[Click]) -> None:
    for day, some in groupby(sorted(made, key=lambda click: (click.day, click.sequence)), lambda click: click.day):
        rows = [
            {
                **EXAMPLE,
                "timestamp": click.at,
                "insertion_timestamp": click.at,
                "arrival_timestamp": click.at,
                "user_id": click.user,
                "user_ip": address(click.place),
                "name": NAMES[click.user],
                "event_name": click.event,
                **dict(zip(("country", "region", "city"), click.place, strict=True)),
                "shard_id": "shardId-0",
                "sequence_number": click.sequence,
            }
            for click in some
        ]
        year, month, date = day.split("-")
        partition = f"year={year}/month={month}/day={date}/hour=12"
        lake.write("enriched", partition, f"part-{rows[0]['sequence_number']}", pa.Table.from_pylist(rows, ENRICHED))


def address(place: tuple[str | None, ...]) -> str:
    return f"8.8.{PLACES.index(place)}.1" if place in PLACES else "9.9.9.9"  # type: ignore[comparison-overlap]


def write_geo(path: Path) -> None:
    """Write a geo database that has the cities with coordinates, and the others without."""
    records: dict[str, object] = {}
    for country, _, city in PLACES:
        if country and city:
            where = COORDINATES.get(city, ())
            location = {name: _double(value) for name, value in zip(("latitude", "longitude"), where, strict=False)}
            record = {"country": {"iso_code": country}, "city": {"names": {"en": city}}, "location": location}
            records[f"{address((country, _, city))}/32"] = record
    path.write_bytes(mmdb(records))


def _double(value: float) -> bytes:
    return bytes([3 << 5 | 8]) + struct.pack(">d", value)  # https://maxmind.github.io/MaxMind-DB/


def counted(made: Iterable[Click], of: str) -> Counter[Any]:
    """Count clicks by event, state, region, city or customer; what is not known is not counted."""
    pick = {
        "event": lambda click: click.event,
        "state": lambda click: click.place[1] if click.place[0] == "US" else None,
        "region": lambda click: click.place[:2] if click.place[1] else None,
        "city": lambda click: click.place if click.place[2] else None,
        "customer": lambda click: (click.user, click.event),
    }[of]
    return Counter(key for click in made if (key := pick(click)) is not None)


def funnel(made: Iterable[Click]) -> list[int]:
    """Count the sessions that came to each step, and before them all sessions."""
    reached = [0] * 5
    for _, some in groupby(sorted(made, key=lambda c: (c.user, c.at, c.sequence)), lambda click: click.user):
        depth, last = -1, None
        for click in some:
            if last is None or click.at - last > timedelta(minutes=30):
                depth = 0
                reached[0] += 1
            if depth < 4 and click.event == STEPS[depth]:
                depth += 1
                reached[depth] += 1
            last = click.at
    return reached
