"""`clickstream dashboard`: pictures of the lake in a browser, or in one file."""

import signal
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli import screen
from cli import setup as set_up
from cli.servers import PROJECT
from clickstream.errors import Refused


def dashboard(
    *,
    lake: Annotated[str | None, typer.Option(help="A folder or s3:// URI; if not given, FOLDER/lake.")] = None,
    lake_endpoint: Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; if not given, a free one.")] = 0,
    export: Annotated[
        Path | None, typer.Option(help="Write the page to this file, which needs no network, and serve nothing.")
    ] = None,
    geo: Annotated[Path, typer.Option(help="The .mmdb file that knows where cities are.")] = set_up.GEO,
    folder: Annotated[
        Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="Where the lake of local runs is.")
    ] = set_up.DATA,
) -> None:
    """Show the lake: events by name, requests by US state, city and region, customers, the funnel.

    Filters by date, country and event work in the exported page too. A served page counts on while a job runs. Both
    hold users' ids and names: what is exported is personal data.

    \b
    clickstream dashboard
    clickstream dashboard --port 8080 --lake s3://my-lake
    clickstream dashboard --export page.html
    """  # noqa: D301
    from analytics.dashboard.answers import answers  # noqa: PLC0415  # Vega and DuckDB take a second
    from analytics.dashboard.page import page  # noqa: PLC0415
    from analytics.dashboard.server import Counts, DashboardServer  # noqa: PLC0415
    from connectors.geo_mmdb import Mmdb  # noqa: PLC0415
    from connectors.lake import Lake  # noqa: PLC0415

    root = lake or str(folder / "lake")
    source = Lake(root, lake_endpoint)
    with tempfile.TemporaryDirectory(prefix="clickstream-dashboard-") as scratch, closing(Mmdb(geo)) as places:

        def made(*, live: bool) -> bytes:
            found = answers(source, Path(scratch), places.coordinates)
            return page(found, lake=root, at=datetime.now(UTC), maps=PROJECT / "node_modules", live=live)

        if export is not None:
            _write(export, made(live=False))
            return
        made(live=True)  # so that what is wrong is said here, not in the browser
        try:
            server = DashboardServer(port, lambda: made(live=True), Counts(source))
        except OSError as error:
            raise Refused(
                f"port {port} cannot be had ({error.strerror}): choose another, or leave out --port"
            ) from None
        with server:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            screen.step(f"the dashboard is at {server.url} (Ctrl-C ends it)")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                screen.err.print("stopped")


def _write(path: Path, page: bytes) -> None:
    half = path.with_name(f".{path.name}.part")
    try:
        half.write_bytes(page)
        half.replace(path)
    except OSError as error:
        raise Refused(f"cannot write {path} ({error.strerror}): choose another place with --export") from None
    screen.step(f"the dashboard is in {path}, {len(page) / 1_000_000:.1f} MB; it holds users' ids and names")
