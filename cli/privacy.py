"""`clickstream privacy`: what a person types to hand a user's data over, or to erase it."""

from pathlib import Path
from typing import Annotated

import typer

from cli import setup as set_up

app = typer.Typer(no_args_is_help=True, help="A person's data: handed over, or erased.")

UserId = Annotated[str, typer.Option("--user", help="The user's id, as events name it.", metavar="ID")]
LakeRoot = Annotated[str | None, typer.Option("--lake", help="A folder or s3:// URI; if not given, FOLDER/lake.")]
LakeEndpoint = Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")]
Database = Annotated[
    str | None,
    typer.Option(help="sqlite:///FILE or mysql://user@host/db; if not given, FOLDER/users.db.", metavar="URL"),
]
RedisUrl = Annotated[
    str | None, typer.Option("--redis", help="If not given, that of the last run in FOLDER.", metavar="URL")
]
Password = Annotated[str | None, typer.Option(help="Where the password is: env:NAME or secretsmanager:NAME.")]
Ca = Annotated[Path | None, typer.Option(help="The CA of the database's certificate.")]
Folder = Annotated[
    Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="For servers' data, checkpoints and logs.")
]


@app.command()
def erase(
    *,
    user: UserId,
    asked_by: Annotated[
        str | None, typer.Option(help="Who asked for it, for the record: a ticket, say. If not given, your login.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    database: Database = None,
    database_password: Password = None,
    database_ca: Ca = None,
    redis: RedisUrl = None,
    redis_password: Password = None,
    stream_hours: Annotated[
        int, typer.Option(min=24, max=8760, help="For how long the streams keep records, in hours.")
    ] = 24,
    folder: Folder = set_up.DATA,
) -> None:
    """Erase one user from every table of the lake, from Redis and from the users database, while the job runs.

    A search afterwards shows that nothing is left. How many rows went, by table, hour and shard, stays on record in
    LAKE/_erasures. It cannot be undone; what it cannot reach is listed, with the day it expires. Interrupted, it is
    simply started again.

    \b
    clickstream privacy erase --user 35
    clickstream privacy erase --user 35 --yes --asked-by "ticket 4711" --lake s3://my-lake --redis rediss://cache:6379
    """  # noqa: D301
    from cli import person  # noqa: PLC0415  # the databases' libraries take a second

    places = person.Places.of(
        folder,
        lake=lake,
        lake_endpoint=lake_endpoint,
        database=database,
        database_password=database_password,
        database_ca=database_ca,
        redis=redis,
        redis_password=redis_password,
    )
    person.erase(places, user, asked_by=asked_by, ask=not yes, stream_hours=stream_hours)


@app.command()
def export(
    *,
    user: UserId,
    to: Annotated[Path, typer.Option(help="The JSON file to write; only you can read it.")],
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    database: Database = None,
    database_password: Password = None,
    database_ca: Ca = None,
    redis: RedisUrl = None,
    redis_password: Password = None,
    folder: Folder = set_up.DATA,
) -> None:
    """Write all that is kept of one user into a JSON file: rows of every table, the customer, what Redis knows.

    \b
    clickstream privacy export --user 35 --to 35.json
    """  # noqa: D301
    from cli import person  # noqa: PLC0415

    places = person.Places.of(
        folder,
        lake=lake,
        lake_endpoint=lake_endpoint,
        database=database,
        database_password=database_password,
        database_ca=database_ca,
        redis=redis,
        redis_password=redis_password,
    )
    person.export(places, user, to)
