"""`clickstream scaling`: what the scaling Lambda would do with traffic, made up or recorded."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import screen
from clickstream.errors import Refused
from deploy.scaling.decide import Policy
from deploy.scaling.simulate import Outcome, simulate
from deploy.scaling.traces import EVENT_BYTES, MADE_UP, made_up, read_trace, write_trace

app = typer.Typer(no_args_is_help=True, help="Try the scaling of shards on traffic, made up or recorded.")

_DEFAULT = Policy()


@app.command("simulate")
def simulate_command(
    trace: Annotated[
        Path | None, typer.Argument(help="A CSV with the columns minute (UTC), bytes and records.", show_default=False)
    ] = None,
    *,
    made: Annotated[
        str | None, typer.Option("--made-up", help="Traffic to make up instead.", metavar="|".join(MADE_UP))
    ] = None,
    peak: Annotated[float, typer.Option(min=0, max=1e9, help="Events a second at the busiest, if made up.")] = 10_000,
    event_bytes: Annotated[float, typer.Option(min=1, max=1_048_576, help="The size of such an event.")] = EVENT_BYTES,
    seed: Annotated[int, typer.Option(help="The same seed makes the same traffic.")] = 1,
    shards: Annotated[int | None, typer.Option(min=1, max=20_000, help="To begin with; else the least.")] = None,
    least: Annotated[int, typer.Option(min=1, help="Never fewer shards.")] = _DEFAULT.least,
    most: Annotated[int, typer.Option(min=1, help="Never more shards.")] = _DEFAULT.most,
    high: Annotated[float, typer.Option(help="Grow when a minute fills more than this share.")] = _DEFAULT.high,
    aim: Annotated[float, typer.Option(help="Grow to where a minute fills this share.")] = _DEFAULT.aim,
    readers: Annotated[
        float | None, typer.Option(min=1, help="Records a second that consumers manage; if not given, all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run traffic past the decisions that the scaling Lambda takes; nothing is asked of AWS.

    \b
    clickstream scaling simulate --made-up black-friday --peak 20000 --most 64
    clickstream scaling simulate trace.csv --shards 4 --json
    """  # noqa: D301
    if (trace is None) == (made is None):
        raise Refused(
            f"traffic comes from a file or is made up. Next: give one of the two, TRACE.csv or --made-up "
            f"{'|'.join(MADE_UP)}"
        )
    policy = Policy(least=least, most=most, high=high, aim=aim)
    loads = read_trace(trace) if trace is not None else made_up(str(made), peak, seed, event_bytes)
    outcome = simulate(policy, loads, shards or least, readers)
    if as_json:
        typer.echo(json.dumps(_as_json(outcome)))
    else:
        _show(outcome, most)


@app.command()
def record(
    *,
    stream: Annotated[str, typer.Option(help="The Kinesis stream.")],
    to: Annotated[Path, typer.Option(help="The CSV file to write, - for standard output.")],
    hours: Annotated[float, typer.Option(min=0.1, max=15 * 24, help="How far back; AWS keeps minutes 15 days.")] = 24,
    endpoint: Annotated[str | None, typer.Option(help="Where CloudWatch is, if not at AWS.", metavar="URL")] = None,
    region: Annotated[str | None, typer.Option(help="AWS region; else the one of your AWS settings.")] = None,
) -> None:
    """Record a stream's traffic from CloudWatch, for `simulate`.

    Records that the stream turned away are in it, as large as the others.

    \b
    clickstream scaling record --stream clickstream-dev-clicks --hours 72 --to trace.csv
    """  # noqa: D301
    from deploy.scaling.observe import client_for, recorded  # noqa: PLC0415  # AWS' library takes a second

    now = datetime.now(UTC).replace(second=0, microsecond=0)
    loads = recorded(client_for("cloudwatch", endpoint, region), stream, now - timedelta(hours=hours), now)
    if not any(load.records for load in loads):
        raise Refused(f"CloudWatch has nothing of {stream} in {hours:g} hours. Next: check its name and the region")
    written = write_trace(loads, Path("/dev/stdout") if str(to) == "-" else to)
    screen.err.print(f"{written:,} minutes of {stream} are in {to}", markup=False)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "minutes": outcome.minutes,
        "records": round(outcome.records),
        "throttled_records": round(outcome.throttled),
        "throttled_share": round(outcome.throttled_share, 6),
        "throttled_minutes": outcome.throttled_minutes,
        "shard_hours": round(outcome.shard_hours, 2),
        "fixed_shards": outcome.needed,
        "fixed_shard_hours": round(outcome.fixed_shard_hours, 2),
        "largest": outcome.largest,
        "actions": [
            {"at": f"{at:%Y-%m-%dT%H:%M}", "from": before, "to": after, "why": why}
            for at, before, after, why in outcome.actions
        ],
        "held_back_minutes": outcome.held_back,
    }


def _show(outcome: Outcome, most: int) -> None:
    if outcome.actions:
        rows = [[f"{at:%a %Y-%m-%d %H:%M}", before, after, why] for at, before, after, why in outcome.actions]
        screen.table("changes", ["UTC", "from", "to", "why"], rows, right=(1, 2))
    saved = 1 - outcome.shard_hours / outcome.fixed_shard_hours if outcome.minutes else 0.0
    rows = [
        ["records", round(outcome.records), f"in {outcome.minutes / 1440:,.1f} days"],
        ["throttled", round(outcome.throttled), f"{outcome.throttled_share:.3%}, in {outcome.throttled_minutes:,} min"],
        ["shard-hours", round(outcome.shard_hours), f"{abs(saved):.0%} {'less' if saved >= 0 else 'more'} than fixed"],
        ["… if fixed", round(outcome.fixed_shard_hours), f"{outcome.needed:,} shards, for the busiest minute"],
        ["changes", len(outcome.actions), f"up to {outcome.largest:,} shards, {most:,} allowed"],
    ]
    screen.table("summary", ["", "", ""], rows, right=(1,))
    if outcome.held_back:
        rows = [[minutes, why] for why, minutes in outcome.held_back.items()]
        screen.table("held back", ["minutes", "why"], rows, right=(0,))
