"""How fast the whole job is, its stages, and other ways to do the same: one table."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from cli import screen
from cli.servers import RedisServer
from clickstream.errors import ClickstreamError
from clickstream.settings import Job
from deploy.cost import read_prices
from tests.bench import growth, latency
from tests.bench.contender import Contender
from tests.bench.java import json_to_parquet, replay
from tests.bench.job import Options, whole_job
from tests.bench.kpu import BUSY, kpu
from tests.bench.measure import KINDS, Cost, Memory, in_turn, machine, median, megabytes
from tests.bench.python_peers import python_peer, versions
from tests.bench.records import CHECKED, Records
from tests.bench.stages import stages

Measured = Mapping[str, Cost]

PARTS = ("job", "replay", "stages", "polars", "bytewax", "java", "loop", "latency")
MOST_OF_A_LOOP = 60_000  # events a process: half a minute
PACKAGES = ("apache-flink", "pyarrow", "msgspec")
COSTS = ["events", "events/s", "a core", "CPU s/million", "JVM", "Python", "Redis", "peak MB", "a worker"]


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--events", type=int, default=3_000_000, help="of each run [%(default)s]")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each [%(default)s]")
    parser.add_argument("--parallelism", type=int, default=2, help="slots of Flink, processes of bytewax [%(default)s]")
    parser.add_argument("--loops", type=int, default=1, help="processes of the plain loop [%(default)s]")
    parser.add_argument("--users", type=int, default=100_000, help="how many shoppers there are [%(default)s]")
    parser.add_argument("--addresses", type=int, default=0, help="so many, all equally often, not the shoppers' own")
    parser.add_argument("--no-archive", action="store_true", help="the job writes no raw archive")
    parser.add_argument("--no-offers", action="store_true", help="the job sends no offers, as in a replay of one's own")
    parser.add_argument("--checkpoint-seconds", type=float, default=5, help="the job's [%(default)g]")
    parser.add_argument("--batch", type=int, default=Job().batch_size, help="records in one [%(default)s]")
    parser.add_argument("--dedup", action="store_true", help="the job keeps out what is sent again")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure just these")
    parser.add_argument("--growth", type=int, metavar="MILLION", help="instead: what an event costs after so many")
    parser.add_argument("--plot", type=Path, help="draw what --growth finds into this file, .svg or .png")
    given = parser.parse_args()
    options = Options(
        given.parallelism,
        archive=not given.no_archive,
        offers=not given.no_offers,
        dedup=given.dedup,
        checkpoint_seconds=given.checkpoint_seconds,
        batch=given.batch,
    )
    try:
        (show_growth if given.growth else compare)(options, given)
    except ClickstreamError as error:
        sys.exit(str(error))


def compare(options: Options, given: argparse.Namespace) -> None:
    """Run everyone in turn, once all have shown that their results are right."""
    records = Records(given.events, given.users, addresses=given.addresses).make()
    CHECKED.make()
    chosen = contenders(options, given)
    for contender in chosen.values():
        contender.check(CHECKED)
    runs: dict[str, Callable[[], Measured]] = {part: _measuring(one, records) for part, one in chosen.items()}
    if "stages" in given.only:
        runs["stages"] = lambda: stages(records, options)
    in_order = [part for part in PARTS if part in runs]
    results = dict(zip(in_order, in_turn(in_order, given.repeat, lambda part: _run(runs[part], part)), strict=True))
    rows = [
        row(name, [one[name] for one in some if name in one])
        for some in results.values()
        for name in dict.fromkeys(name for one in some for name in one)
    ]
    if rows:
        columns = ["", *COSTS]
        screen.table(title(), columns, rows, right=tuple(range(1, len(columns))))
        explain(options, given)
    if jobs := [cost for one in results.get("job", []) for cost in one.values()]:
        show_kpu(jobs)
    if "latency" in given.only:
        show_latency()


def contenders(options: Options, given: argparse.Namespace) -> dict[str, Contender]:
    """Return those who are to be measured as a whole."""
    slots = options.parallelism
    everyone = {
        "job": whole_job(options),
        "replay": replay(slots),
        "polars": python_peer("polars batch, all in memory", "polars_batch", 1),
        "bytewax": python_peer(f"bytewax, {slots} processes", "bytewax_flow", slots),
        "java": json_to_parquet(slots),
        "loop": python_peer(
            f"plain loop, {given.loops} at a time", "loop", given.loops, most=MOST_OF_A_LOOP * given.loops
        ),
    }
    return {part: one for part, one in everyone.items() if part in given.only}


def row(name: str, costs: Sequence[Cost]) -> list[Any]:
    """Lay out the runs of one contender: medians, and how far they are apart."""
    micros = [median([cost.micros(kind) for cost in costs], ".1f", spread=False) for kind in KINDS]
    memory = reduce(Memory.or_more, (cost.memory for cost in costs))
    return [
        name,
        costs[0].events
        if len({cost.events for cost in costs}) == 1
        else median([cost.events for cost in costs], spread=False),
        median([cost.rate for cost in costs]),
        median([cost.per_core for cost in costs], spread=False),
        median([cost.micros() for cost in costs], ".1f"),
        *micros,
        *(megabytes(memory) if memory.total else ["", ""]),
    ]


def title() -> str:
    """Say what was measured on, and with which versions of what takes part."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server, server.client() as client:
        redis: Any = client.info("server")
    others = [f"Java {java.split(chr(34))[1]}", f"Redis {redis['redis_version']}", *versions("bytewax", "polars")]
    return ", ".join([machine(*PACKAGES), *others])


def explain(options: Options, given: argparse.Namespace) -> None:
    """Say what the columns and rows are, and who does less."""
    archive, seconds = " and raw" if options.archive else "", options.checkpoint_seconds
    offers = "offers into a stream that takes all" if options.offers else "no offers, as in a replay of one's own"
    repeat, users = given.repeat, f"{given.users:,} shoppers"
    if given.addresses:
        users += f" at {given.addresses:,} addresses"
    screen.out.print(
        f"""
Median of {repeat}, run in turn (least–most). {users}, 1 % malformed. Events are those between two
points of one run, so that starting is not in it. "A core": events for each second of CPU of all processes. Peak:
resident memory of all processes but Redis, and of the largest Python process ("a worker").

Whole job: raw Parquet to enriched, rejected{archive}, look-ups and last access in Redis, exactly once,
a checkpoint each {seconds:g} s; {offers}. Stages: parts of its function, on batches
of its size. Polars, bytewax and the loop have the same input and tables, and were checked for it; they send no offers.
None of them commits before its end, goes on after a crash, or bounds its memory; polars reads in bulk only what is
spelled as the generator does. Flink SQL reads lines of JSON without the malformed ones, looks nothing up, and writes
neither origin, rejected, raw nor partitions; of replay nothing is written at all.""",
        markup=False,
    )


def show_kpu(costs: Sequence[Cost]) -> None:
    """Say what the job's cost means on Managed Flink."""
    prices = read_prices()
    found = kpu(sorted(costs, key=lambda cost: cost.micros("jvm", "python"))[len(costs) // 2], prices)
    screen.out.print(
        f"""
One KPU (1 vCPU, 4 GiB), counted as {BUSY:.0%} of such a core: {found.rate:,.0f} events/s, from {found.shards} shards.
A million events cost ${found.flink_dollars:.4f} for it, ${found.kinesis_dollars:.4f} for Kinesis"""
        f""" ({prices.region}, prices of {prices.as_of}).""",
        markup=False,
    )


def show_latency() -> None:
    """Measure from event to offer, with the job's own bundles and with those of Managed Flink."""
    rows = []
    for name, job in (("event to offer", Job()), ("… with bundles of Managed Flink", latency.MANAGED)):
        found = latency.measure(job)
        rows.append([name, found.offers, *(f"{one:,.0f}" for one in (found.p50, found.p99, found.most)), found.lost])
    columns = ["", "offers", "p50 ms", "p99 ms", "most", "lost"]
    screen.table("From PutRecords to readable, 2,000 events/s", columns, rows, right=tuple(range(1, len(columns))))


def show_growth(options: Options, given: argparse.Namespace) -> None:
    """Print and draw what an event costs after many, and with many partitions."""
    rows, windows = growth.of_volume(options, given.users, given.growth)
    rows += growth.of_partitions(options, given.users, min(given.events, given.growth * 1_000_000))
    columns = ["", *growth.COLUMNS]
    screen.table(title(), columns, rows, right=tuple(range(1, len(columns))))
    if given.plot:
        growth.plot(windows).save(given.plot)


def _measuring(contender: Contender, records: Records) -> Callable[[], Measured]:
    return lambda: {contender.name: contender.measure(records)}


def _run(run: Callable[[], Measured], part: str) -> Measured:
    """Measure one part; what cannot be measured is left out, and said, rather than all the others lost."""
    screen.step(part)
    try:
        return run()
    except ClickstreamError as error:
        screen.err.print(f"{part}: {error}", markup=False)
        return {}


if __name__ == "__main__":
    main()
