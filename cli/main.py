"""The `clickstream` command."""

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import analyst, scaling, screen
from cli import setup as set_up
from clickstream import __version__
from clickstream.errors import ClickstreamError, Refused

if TYPE_CHECKING:
    from generator.records import Publisher

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Clickstream events, enriched and turned into offers by one PyFlink job.",
)
users_app = typer.Typer(no_args_is_help=True, help="The users table, and its names in Redis.")
app.add_typer(users_app, name="users")
app.add_typer(scaling.app, name="scaling")

Folder = Annotated[
    Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="For servers' data, checkpoints and logs.")
]
LakeRoot = Annotated[str | None, typer.Option(help="A folder or s3:// URI; if not given, FOLDER/lake.")]
LakeEndpoint = Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")]
RedisUrl = Annotated[str, typer.Option("--redis", help="redis://host:port/db, or rediss:// for TLS.", metavar="URL")]
Password = Annotated[str | None, typer.Option(help="Where the password is: env:NAME or secretsmanager:NAME.")]
Manifest = Annotated[
    Path | None, typer.Option(help="Write down where the stream put each record, for `clickstream audit`.")
]


class Front(StrEnum):
    """How events come in."""

    STREAM = "stream"
    API = "api"


@app.command()
def run(
    *,
    input: Annotated[  # noqa: A002  # the option's name
        Path | None, typer.Option(help="Publish each line of this file as it is, instead of made-up events.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="CSV with the columns customer_id, pixel_id, name, price_per_click.")
    ] = None,
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    report: Annotated[Path | None, typer.Option(help="Write the counts to this file as JSON.")] = None,
    events: Annotated[
        int | None, typer.Option(min=0, help="How many events; if not given, 20000, or all of the input's.")
    ] = None,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="The share of made-up events to break.")] = 0.01,
    seed: Annotated[int, typer.Option(help="The same seed makes the same shoppers.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Events a second; if not given, as fast as it goes, and 100 to follow."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, from where the last --follow has left off.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="With --follow: forget what the last one has left.")] = False,
    begin_from: Annotated[
        Path | None, typer.Option(help="With --follow: begin from this checkpoint or savepoint.", metavar="STATE")
    ] = None,
    dedup: Annotated[
        bool,
        typer.Option("--dedup", help="Keep out what a client sends again within ten minutes; it goes to suppressed."),
    ] = False,
    manifest: Manifest = None,
    ip: Annotated[
        Literal["keep", "truncate", "hash"],
        typer.Option(help="What is stored of addresses, in raw and rejected too: all, their network, or a keyed hash."),
    ] = "keep",
    parallelism: Annotated[int, typer.Option(min=1, help="Slots of Flink, and Python processes.")] = 2,
    front: Annotated[
        Front, typer.Option(help="How events come in: straight into the stream, or by HTTP through an API Gateway.")
    ] = Front.STREAM,
    folder: Folder = set_up.DATA,
) -> None:
    """Run the whole pipeline here: Redis, kinesalite, users, events and the job, until all events are processed.

    Events are added to the lake; FOLDER/users.db, Redis and the streams begin empty. Those of --follow are in
    FOLDER/follow, and the next --follow finds them there as they were left, in order or not.

    \b
    clickstream run
    clickstream run --input events.ndjson --users users.csv --lake my-lake --report report.json
    clickstream run --follow --rate 500
    clickstream run --front api --events 1000
    """  # noqa: D301
    from cli.run import Run  # noqa: PLC0415  # AWS' library takes a second

    set_up.need_setup()
    Run(
        folder=folder,
        lake=lake or str(folder / "lake"),
        geo=set_up.GEO,
        lake_endpoint=lake_endpoint,
        input=input,
        users=users,
        report=report,
        events=events if events is not None or input else 20_000,
        malformed=malformed,
        seed=seed,
        rate=rate or (100.0 if follow and input is None else None),
        follow=follow,
        ip=ip,
        fresh=fresh,
        begin_from=begin_from,
        dedup=dedup,
        manifest=manifest,
        parallelism=parallelism,
        through_api=front is Front.API,
    )()


@app.command()
def setup(
    *,
    front: Annotated[bool, typer.Option("--front", help="The emulated API Gateway too, for run --front api.")] = False,
) -> None:
    """Fetch and build what is missing here: kinesalite, a geo database, the job's jar.

    \b
    clickstream setup
    clickstream setup --front
    """  # noqa: D301
    set_up.setup()
    if front:
        set_up.set_up_front()
    screen.step("everything is in place")


@app.command()
def generate(
    *,
    to: Annotated[str, typer.Option(help="A file, http(s)://…, or kinesis:STREAM.")],
    endpoint: Annotated[str | None, typer.Option(help="Where Kinesis is, if not at AWS.", metavar="URL")] = None,
    region: Annotated[str | None, typer.Option(help="AWS region; else the one of your AWS settings.")] = None,
    events: Annotated[int, typer.Option(min=1, help="How many.")] = 20_000,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="The share to break.")] = 0.01,
    seed: Annotated[int, typer.Option(help="The same seed makes the same shoppers.")] = 1,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events a second.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=500, help="How many in one POST; 1 sends each as it is.")] = 1,
    users: Annotated[Path | None, typer.Option(help="Write the shoppers' users table to this CSV file.")] = None,
    manifest: Manifest = None,
) -> None:
    """Make up shoppers and publish what they do.

    \b
    clickstream generate --to events.ndjson --users users.csv
    clickstream generate --to kinesis:clicks --endpoint http://127.0.0.1:4567 --rate 100 --manifest accepted.ndjson
    clickstream generate --to https://api.example.com/prod --events 1000 --batch 100
    """  # noqa: D301
    from generator.malformed import mixed  # noqa: PLC0415
    from generator.pace import paced  # noqa: PLC0415
    from generator.shoppers import Shoppers, write_customers  # noqa: PLC0415

    shoppers = Shoppers(seed, per_second=rate or 100.0)
    if users is not None:
        write_customers(shoppers.customers(), users)
    records = islice(mixed(shoppers.records(), malformed, random.Random(seed)), events)  # noqa: S311
    with _publisher(to, endpoint, region, batch, manifest) as publisher:
        published = publisher.publish(paced(records, rate) if rate else records)
    screen.err.print(f"{published.accepted:,} events are in {to}", markup=False)
    if published.refusals:
        raise Refused(f"{to} refused {published.refusals:,} events: {dict(published.refused)}")


@app.command()
def replay(
    source: Annotated[str, typer.Argument(help="A folder or URI of raw or rejected records: LAKE/raw/year=2026/…")],
    *,
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    redis: Annotated[
        str | None, typer.Option(help="The Redis to use; else one just for this replay.", metavar="URL")
    ] = None,
    redis_password: Password = None,
    users: Annotated[
        Path | None, typer.Option(help="Users for that one, as CSV; else those of FOLDER/users.db.")
    ] = None,
    offers: Annotated[
        str | None, typer.Option(help="Send offers too, to this Kinesis stream. Not unless asked.", metavar="STREAM")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Where Kinesis is, if not at AWS.", metavar="URL")] = None,
    parallelism: Annotated[int, typer.Option(min=1, help="Slots of Flink, and Python processes.")] = 2,
    folder: Folder = set_up.DATA,
) -> None:
    """Process records again: each keeps its origin, and what it came to before is replaced.

    \b
    clickstream replay .data/lake/rejected
    clickstream replay s3://lake/raw/year=2026/month=11/day=23 --lake s3://lake --redis rediss://cache:6379
    """  # noqa: D301
    from cli.replay import Replay  # noqa: PLC0415

    set_up.need_setup()
    Replay(
        source=source,
        folder=folder,
        lake=lake or str(folder / "lake"),
        geo=set_up.GEO,
        lake_endpoint=lake_endpoint,
        redis_url=redis,
        redis_password=redis_password,
        users=users,
        offers=offers,
        endpoint=endpoint,
        parallelism=parallelism,
    )()


@app.command()
def package(
    to: Annotated[Path, typer.Option(help="The zip to write.")] = Path("dist/clickstream-flink.zip"),
    geo_database: Annotated[
        Path | None, typer.Option(help="Take this .mmdb file along; its place in the settings is then geo/NAME.")
    ] = None,
) -> None:
    """Build the zip that Managed Service for Apache Flink runs: main.py, one jar, and the Python packages.

    \b
    clickstream package
    clickstream package --geo-database .data/geo/GeoLite2-City.mmdb
    """  # noqa: D301
    from deploy.package import build  # noqa: PLC0415

    set_up.need_setup()
    screen.step("collecting the packages for Python 3.11 on Linux x86_64")
    build(to, set_up.JAR, geo_database)
    screen.step(f"{to} is ready: {to.stat().st_size / 1_000_000:.1f} MB")


@users_app.command("sync")
def users_sync(
    *,
    database: Annotated[
        str, typer.Option(help="sqlite:///FILE or mysql+pymysql://user@host/db", metavar="URL")
    ] = f"sqlite:///{set_up.DATA / 'users.db'}",
    database_password: Password = None,
    database_ca: Annotated[Path | None, typer.Option(help="The CA of the database's certificate.")] = None,
    redis: RedisUrl = "redis://127.0.0.1:6379/0",
    redis_password: Password = None,
    user: Annotated[str | None, typer.Option(help="Only this user, who has just signed up.")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="Again every so many seconds, until Ctrl-C.")] = None,
) -> None:
    """Copy the users' names from the database into Redis, where the job looks them up.

    \b
    clickstream users sync --redis redis://127.0.0.1:6379/0
    clickstream users sync --user 35
    clickstream users sync --every 3600 --database mysql+pymysql://app@db/shop --database-password env:DB_PASSWORD
    """  # noqa: D301
    from cli.users import sync  # noqa: PLC0415

    sync(database, database_password, database_ca, redis, redis_password, only=user, every=every)


@users_app.command("load")
def users_load(
    file: Annotated[Path, typer.Argument(help="CSV with the columns customer_id, pixel_id, name, price_per_click.")],
    *,
    database: Annotated[
        str, typer.Option(help="sqlite:///FILE or mysql+pymysql://user@host/db", metavar="URL")
    ] = f"sqlite:///{set_up.DATA / 'users.db'}",
    database_password: Password = None,
    database_ca: Annotated[Path | None, typer.Option(help="The CA of the database's certificate.")] = None,
) -> None:
    """Load users from a CSV file into the database; who is there already is replaced.

    \b
    clickstream users load users.csv
    """  # noqa: D301
    from cli.users import load  # noqa: PLC0415

    load(file, database, database_password, database_ca)


@contextmanager
def _publisher(
    to: str, endpoint: str | None, region: str | None, batch: int, manifest: Path | None
) -> Iterator["Publisher"]:
    from generator.http import HttpPublisher  # noqa: PLC0415
    from generator.kinesis import KinesisPublisher  # noqa: PLC0415
    from generator.lines import FilePublisher  # noqa: PLC0415
    from generator.manifest import Manifest  # noqa: PLC0415

    if to.startswith("kinesis:"):
        from cli.offers import kinesis_client  # noqa: PLC0415

        stream, client = to.removeprefix("kinesis:"), kinesis_client(endpoint, region)
        if manifest is None:
            yield KinesisPublisher(client, stream)
            return
        with Manifest(manifest) as written:
            yield KinesisPublisher(client, stream, on_accepted=written.accepted)
    elif manifest is not None:
        raise Refused(f"--manifest: only a stream says where it put a record, {to} does not. Next: --to kinesis:STREAM")
    else:
        yield HttpPublisher(to, batch=batch) if to.startswith(("http://", "https://")) else FilePublisher(Path(to))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _add_commands() -> None:
    """Add the commands that have a file of their own."""
    from cli import deploy, privacy  # noqa: PLC0415
    from cli.auditor import audit  # noqa: PLC0415
    from cli.dashboard import dashboard  # noqa: PLC0415
    from cli.metrics import metrics  # noqa: PLC0415
    from cli.offers import offers  # noqa: PLC0415

    for command in (offers, audit, metrics, dashboard, deploy.doctor):
        app.command()(command)
    app.add_typer(deploy.app, name="deploy")
    app.add_typer(privacy.app, name="privacy")
    analyst.add_to(app)


_add_commands()


def _say_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise a KeyboardInterrupt again that Python could only print, for Ctrl-C came while a library's finalizer ran."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        interrupt = (threading.main_thread().ident, signal.SIGINT)
        threading.Timer(0.05, signal.pthread_kill, interrupt).start()  # not at once: it would be lost in here too
    else:
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run a command: exit with 1 and one sentence when it cannot do its work, with 130 on Ctrl-C."""
    sys.unraisablehook = _say_again
    try:
        app()
    except ClickstreamError as error:
        screen.err.print("[bold red]error:[/] ", end="")
        screen.err.print(str(error), markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        screen.err.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
