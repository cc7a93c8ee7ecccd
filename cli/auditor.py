"""What an auditor types: audit."""

import json as json_module
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import screen
from cli.offers import kinesis_client
from cli.setup import DATA
from clickstream.errors import Refused

_TIMES: Final = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H", "%Y-%m-%d"]


def audit(
    *,
    lake: Annotated[str | None, typer.Option(help="A folder or s3:// URI; if not given, FOLDER/lake.")] = None,
    lake_endpoint: Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")] = None,
    stream: Annotated[
        str | None, typer.Option(help="Compare with what this Kinesis stream has accepted and still holds.")
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="Compare with what a publisher wrote down as accepted; may be given more than once."),
    ] = None,
    offers: Annotated[
        str | None, typer.Option(help="Compare with the offers in this Kinesis stream too.", metavar="STREAM")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Where Kinesis is, if not at AWS.", metavar="URL")] = None,
    region: Annotated[str | None, typer.Option(help="AWS region; else the one of your AWS settings.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw/--no-raw", help="Whether the job archives into raw: then all has to be there.")
    ] = True,
    since: Annotated[
        datetime | None, typer.Option(help="Only what arrived from this time on, in UTC.", formats=_TIMES)
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Only what arrived before: the rest may be on its way.", formats=_TIMES)
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every payload again, not only of about a million records.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    memory: Annotated[str, typer.Option(help="What the comparison may use; the rest goes to disk.")] = "1GB",
    folder: Annotated[
        Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="Where the lake is, and room for scratch files.")
    ] = DATA,
) -> None:
    """Show that nothing is lost and nothing there twice; exit with 1 and name the records if it is otherwise.

    Without --stream and --manifest the tables are compared with each other: everything in raw has to be enriched,
    rejected or suppressed.
    The hour that a job is writing to is left out with --until.

    \b
    clickstream audit
    clickstream audit --manifest accepted.ndjson --json
    clickstream audit --lake s3://lake --stream clicks --offers offers --until 2026-11-24T10:00
    """  # noqa: D301
    from cli.audit import Audit, check, show  # noqa: PLC0415  # DuckDB and Arrow take a second
    from connectors.lake import Lake  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    root = lake or str(folder / "lake")
    verdict = Audit(
        lake=Lake(root, lake_endpoint),
        client=kinesis_client(endpoint, region) if stream or offers else None,
        stream=stream,
        offers=offers,
        manifests=manifest or (),
        archived=raw,
        deep=deep,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        memory=memory,
        scratch=folder,
    )()
    if not verdict.totals["origins"] and verdict.balanced:
        raise Refused(f"there is nothing to compare in {root}. Next: name the right --lake, or another time")
    if json:
        typer.echo(json_module.dumps(verdict.facts(), indent=2))
    else:
        show(verdict)
    check(verdict)
    if not json:
        screen.out.print(str(verdict), markup=False)
