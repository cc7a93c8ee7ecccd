"""Whether an event costs the same however many came before it, and however many partitions are open."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import altair as alt

from connectors.lake import Lake
from tests.bench.contender import LAKE, ground, need_points
from tests.bench.job import WARMED_UP, Options, whole_job
from tests.bench.measure import KINDS, MEGABYTE, Cost, Point, between, megabytes
from tests.bench.records import Records

VOLUMES = (1, 3, 10, 30)  # million events
PARTITIONS = {  # how many hours the records are of, and in how many of them at a time they take turns
    "1 partition": (1, 1),
    "200 partitions, one after the other": (200, 1),
    "24 partitions at a time": (1, 24),
    "200 partitions at a time": (1, 200),
}
EVENTS = 3_000_000  # of a run with so many partitions
WINDOW = 1.25  # how much further a run is at the end of a window than at its beginning
COLUMNS = ["events", "events/s", "CPU s/million", "JVM", "Python", "Redis", "peak MB", "a worker"]


class Window(NamedTuple):
    """A part of a run: how many events there were at its end, and what those in it have cost."""

    so_far: int
    cost: Cost


class Written(NamedTuple):
    """A run, and the files of `enriched` that it has left in each hour."""

    points: Sequence[Point]
    files: Sequence[int]  # an hour
    sizes: Sequence[int]  # bytes


def of_volume(options: Options, users: int, million: int) -> tuple[list[list[Any]], list[Window]]:
    """Run the job on so many million events; return what they cost from the first million on, as a table's rows and in
    ever longer windows."""
    points = run(options, Records(million * 1_000_000, users), warmed_up=1 / million).points
    edges = [0, *(volume for volume in VOLUMES if volume < million), million]
    rows = []
    for low, high in pairwise(edges):
        inside = [point for point in points if low * 1e6 <= point.processed <= high * 1e6]
        if len(inside) > 1:
            rows.append(row(f"{low} to {high} million events", between(inside)))
    return rows, windows(points)


def of_partitions(options: Options, users: int, events: int = EVENTS) -> list[list[Any]]:
    """Run the job on records of one hour, and of many in order and at once, each of which is a partition."""
    rows = []
    for name, (hours, at_once) in PARTITIONS.items():
        written = run(options, Records(events, users, hours, at_once))
        size = sum(written.sizes) / len(written.sizes) / MEGABYTE
        files = f"each of {max(written.files)} files at most, on average {size:,.1f} MB"
        rows.append(row(f"{name}, {files}", between(written.points)))
    return rows


def run(options: Options, records: Records, warmed_up: float = WARMED_UP) -> Written:
    """Run the job."""
    with ground(records.make()) as (folder, redis):
        points = whole_job(options, warmed_up).run(records, folder, redis)
        files = Lake(str(folder / LAKE)).files("enriched")
    need_points(points, records)
    by_hour = Counter(file.partition for file in files)
    return Written(points, list(by_hour.values()), [file.size for file in files])


def row(name: str, cost: Cost) -> list[Any]:
    """Lay out what a stretch of a run has cost."""
    micros = [f"{cost.micros(*kinds):.1f}" for kinds in ((), *((kind,) for kind in KINDS))]
    return [name, cost.events, int(cost.rate), *micros, *megabytes(cost.memory)]


def windows(points: Sequence[Point]) -> list[Window]:
    """Part a run into windows at whose ends it is a quarter further than at their beginnings."""
    edges = [points[0]]
    for point in points[1:]:
        if point.processed >= WINDOW * edges[-1].processed:
            edges.append(point)
    return [Window(pair[1].processed, between(pair)) for pair in pairwise(edges)]


def plot(costs: Sequence[Window]) -> alt.Chart:
    """Draw the CPU time of an event against how many came before it."""
    values = [
        {"events": so_far, "micros": cost.micros(kind), "where": title}
        for so_far, cost in costs
        for kind, title in (("jvm", "JVM"), ("python", "Python"), ("redis", "Redis"))
    ]
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=values), width=640, height=280)
        .mark_area(line=True, opacity=0.7)
        .encode(
            x=alt.X(
                "events:Q", title="events so far", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~s")
            ),
            y=alt.Y("micros:Q", title="CPU µs an event", stack=True),
            color=alt.Color("where:N", title=None),
        )
    )
    return chart
