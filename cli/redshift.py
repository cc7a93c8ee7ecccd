"""Runs the SQL files for Redshift at AWS, over the Data API."""

import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from analytics.dialects import inserted, parameters_of, split
from cli import screen
from cli.query import Query
from clickstream.errors import Refused
from connectors.redshift_data import RedshiftData


def connect(region: str | None, workgroup: str, database: str) -> RedshiftData:
    """Make a door to a workgroup; boto3 tries busy answers again by itself."""
    try:
        client = boto3.client("redshift-data", region_name=region, config=Config(retries={"mode": "standard"}))
    except BotoCoreError as error:
        raise Refused(
            f"Redshift cannot be asked: {error} Next: give --region eu-central-1, or your own; aws configure list"
        ) from None
    return RedshiftData(client, workgroup, database, sleep=time.sleep)


def run_redshift(query: Query, door: RedshiftData, texts: dict[str, str], values: dict[str, str]) -> None:
    """Run a query and print what it answers; what cannot be bound is checked before it is put into the text."""
    if query.dialect != "redshift":
        raise Refused(f"{query.name} is written for Athena. Next: clickstream query {query.name}, or Athena's console")
    text = inserted(query.text, {**values, **texts})
    statements = split(text, "redshift")
    if not statements:
        raise Refused(f"there is no statement in {query.name}")
    named = parameters_of(statements)
    missing = sorted(named - values.keys())
    if missing:
        raise Refused(f"{query.name} asks for :{missing[0]}, and it can have {', '.join(sorted(values))}")
    with screen.progress() as progress:
        result = door.run(
            statements,
            {name: values[name] for name in named},
            lambda status: progress.show(f"Redshift: {status.lower()}"),
        )
    if result.columns:
        rows = [list(row) for row in result.rows]
        numbers = tuple(n for n in range(len(result.columns)) if rows and isinstance(rows[0][n], int | float))
        screen.table(query.name, result.columns, rows, right=numbers)
    screen.err.print(f"Redshift took {result.seconds:.1f} s", markup=False)
