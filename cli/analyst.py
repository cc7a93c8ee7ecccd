"""What an analyst types: query, redshift and profile."""

# ruff: noqa: D301, PLC0415  # \b keeps examples on lines of their own; DuckDB and sqlglot are imported by who needs them

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import setup as set_up

Folder = Annotated[
    Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="Where runs leave users.db and Redis' data.")
]
LakeRoot = Annotated[str | None, typer.Option(help="A folder or s3:// URI; if not given, FOLDER/lake.")]
LakeEndpoint = Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")]
Secret = Annotated[str | None, typer.Option(help="Where the password is: env:NAME or secretsmanager:NAME.")]
Since = Annotated[str | None, typer.Option(help="The first day of arrival to look at, such as 2026-11-01.")]
Until = Annotated[str | None, typer.Option(help="The last day of arrival to look at.")]
Memory = Annotated[str, typer.Option(help="DuckDB keeps to it, and to disk beyond.")]


def query(
    name: Annotated[
        str | None, typer.Argument(help="A query's name, a file of SQL, or - for the standard input.")
    ] = None,
    *,
    since: Since = None,
    until: Until = None,
    format: Annotated[  # noqa: A002  # the option's name
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option(help="If not given, a table, or what the name of --output ends in."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the answer to this file.")] = None,
    dialect: Annotated[
        Literal["athena", "redshift", "duckdb"] | None,
        typer.Option(help="In whose words a file is; else Redshift's in a folder of that name, and Athena's."),
    ] = None,
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    redis: Annotated[
        str | None, typer.Option(help="The Redis to join; else what the last run left in FOLDER.", metavar="URL")
    ] = None,
    redis_password: Secret = None,
    database: Annotated[
        str | None, typer.Option(help="The users to join; else those of FOLDER/users.db.", metavar="URL")
    ] = None,
    database_password: Secret = None,
    database_ca: Annotated[Path | None, typer.Option(help="The CA of the database's certificate.")] = None,
    memory: Memory = "4GB",
    folder: Folder = set_up.DATA,
) -> None:
    """Ask the lake here what Athena and Redshift are asked on AWS, with the same SQL. Without a name, list the queries.

    The tables are enriched, flattened, rejected and raw, redis.clickstream_redis.users and mysql.clickstream.customers.
    What UNLOAD writes to s3://… is in FOLDER/s3/…

    \b
    clickstream query
    clickstream query funnel
    clickstream query top-products-by-revenue --since 2026-11-01 --until 2026-11-30 --output products.csv
    clickstream query unload-by-country-and-event-name
    echo "SELECT country, count(*) FROM enriched GROUP BY 1 ORDER BY 2 DESC" | clickstream query - --format json
    """
    from cli.query import Sources, days, find_query, list_queries, run_query

    if name is None:
        list_queries()
        return
    sources = Sources(
        folder=folder,
        lake=lake or str(folder / "lake"),
        lake_endpoint=lake_endpoint,
        redis=redis,
        redis_password=redis_password,
        database=database,
        database_password=database_password,
        database_ca=database_ca,
        memory=memory,
        values=days(since, until),
    )
    run_query(find_query(name, dialect), sources, format, output)


def redshift(
    name: Annotated[str, typer.Argument(help="A query's name, a file of SQL, or - for the standard input.")],
    *,
    environment: Annotated[
        str, typer.Option(help="Names the workgroup and the Glue database, if they are not given.")
    ] = "dev",
    workgroup: Annotated[str | None, typer.Option(help="If not given, clickstream-ENVIRONMENT.")] = None,
    database: Annotated[str, typer.Option(help="Redshift's own.")] = "clickstream",
    glue_database: Annotated[str | None, typer.Option(help="If not given, clickstream_ENVIRONMENT.")] = None,
    lake: Annotated[str | None, typer.Option(help="s3://BUCKET, for what writes or reads unloads.")] = None,
    since: Since = None,
    until: Until = None,
    region: Annotated[str | None, typer.Option(help="AWS region; else the one of your AWS settings.")] = None,
) -> None:
    """Run a query at AWS by Redshift's Data API, wait for it, and print what it answers.

    \b
    clickstream redshift external-schema
    clickstream redshift count-by-event-name --since 2026-11-01 --until 2026-11-30
    clickstream redshift unload-by-country-and-event-name --lake s3://my-lake
    """
    from cli.query import days, find_query
    from cli.redshift import connect, run_redshift

    texts = {"glue_database": glue_database or f"clickstream_{environment.replace('-', '_')}"}
    if lake is not None:
        texts["lake"] = lake.rstrip("/")
    query = find_query(name, "redshift" if name == "-" else None)
    door = connect(region, workgroup or f"clickstream-{environment}", database)
    run_redshift(query, door, texts, days(since, until))


def profile(
    *,
    thresholds: Annotated[Path | None, typer.Option(help="Fail on what this YAML file sets a limit to.")] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
    since: Since = None,
    until: Until = None,
    lake: LakeRoot = None,
    lake_endpoint: LakeEndpoint = None,
    memory: Memory = "4GB",
    folder: Folder = set_up.DATA,
) -> None:
    """Show how good the data is by hour of arrival: freshness, completeness, what is unknown, rejected or there twice.

    Exits with 1 when a threshold is broken, and names it.

    \b
    clickstream profile
    clickstream profile --since 2026-11-23 --thresholds analytics/thresholds.yaml --format json
    """
    from cli.profile import run_profile
    from cli.query import Sources, days

    sources = Sources(folder=folder, lake=lake or str(folder / "lake"), lake_endpoint=lake_endpoint, memory=memory)
    run_profile(sources, days(since, until), thresholds, format)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(query)
    app.command()(redshift)
    app.command()(profile)
