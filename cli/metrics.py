"""`clickstream metrics`: what the running job counts, in the text form that Prometheus scrapes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import screen
from cli.servers import LOOPBACK
from cli.setup import DATA
from clickstream.errors import ClickstreamError, Refused
from connectors.flink_rest import FlinkRest, Label
from connectors.lake import Lake
from enrichment.metrics import GAUGES, PURPOSE
from flink_app.state import REST

DELAY: Final = "commit_delay_seconds"
_PURPOSE: Final = {**PURPOSE, DELAY: "how long the oldest and the newest record of the last enriched file took into it"}


@dataclass(frozen=True)
class Meters:
    """What a running job counts, and how long records took into the lake."""

    flink: FlinkRest
    lake: Lake

    def __str__(self) -> str:
        """Write it all in Prometheus' text format."""
        lines: list[str] = []
        counted = self.flink.metrics(GAUGES)
        values: dict[tuple[str, Label], float] = {**counted, **self._delay()}
        for name, purpose in _PURPOSE.items():
            some = {label: value for (of, label), value in values.items() if of == name}
            is_gauge = name in (*GAUGES, DELAY)
            full = f"clickstream_{name}{'' if is_gauge else '_total'}"
            if some:
                lines += [f"# HELP {full} {purpose}", f"# TYPE {full} {'gauge' if is_gauge else 'counter'}"]
                lines += [f"{full}{_braces(label)} {value:g}" for label, value in sorted(some.items(), key=str)]
        return "".join(f"{line}\n" for line in lines)

    def _delay(self) -> Mapping[tuple[str, Label], float]:
        """Look at the file that was committed last, of this hour's and the last one's."""
        now = datetime.now(UTC)
        hours = [(now - timedelta(hours=back)).strftime("year=%Y/month=%m/day=%d/hour=%H") for back in (0, 1)]
        files = [file for hour in hours for file in self.lake.files(f"enriched/{hour}")]
        last = max(files, key=lambda file: file.written, default=None)
        if last is None or (arrivals := self.lake.arrivals(last)) is None:
            return {}
        oldest, newest = ((last.written - moment).total_seconds() for moment in arrivals)
        return {(DELAY, ("of", "oldest")): max(oldest, 0.0), (DELAY, ("of", "newest")): max(newest, 0.0)}


def rest_of_run(folder: Path) -> str | None:
    """Find the Flink of the run that was started last in a folder; None if none ever was."""
    found = [file for file in (folder / "flink" / REST, folder / "follow" / "flink" / REST) if file.is_file()]
    return max(found, key=lambda file: file.stat().st_mtime).read_text() if found else None


@contextmanager
def serving(meters: Meters, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    """Open a server that answers GET /metrics on loopback; 503 while the job is not running."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            try:
                status, body = 200, str(meters)
            except ClickstreamError as error:
                status, body = 503, f"{error}\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise Refused(f"port {port} cannot be used ({error.strerror}). Next: choose another with --port") from None
    with server:
        yield server


def metrics(
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Answer GET /metrics on this loopback port, until Ctrl-C.")
    ] = None,
    flink: Annotated[
        str | None, typer.Option(help="Flink's REST API, if not that of the run in FOLDER.", metavar="URL")
    ] = None,
    lake: Annotated[str | None, typer.Option(help="A folder or s3:// URI; if not given, FOLDER/lake.")] = None,
    lake_endpoint: Annotated[str | None, typer.Option(help="Where S3 is, if not at AWS.", metavar="URL")] = None,
    folder: Annotated[Path, typer.Option("--folder", envvar="CLICKSTREAM_DATA", help="The folder of the run.")] = DATA,
) -> None:
    """Print what the running job counts, in Prometheus' text format, or serve it for a Prometheus to scrape.

    \b
    clickstream metrics
    clickstream metrics --port 9249 & curl http://127.0.0.1:9249/metrics
    """  # noqa: D301
    url = flink or rest_of_run(folder)
    if url is None:
        raise Refused(f"no job has been run in {folder}. Next: clickstream run --follow, or name one with --flink URL")
    meters = Meters(FlinkRest(url.rstrip("/")), Lake(lake or str(folder / "lake"), lake_endpoint))
    if port is None:
        typer.echo(str(meters), nl=False)
        return
    with serving(meters, port) as server:
        screen.step(f"serving http://{LOOPBACK}:{server.server_port}/metrics, until Ctrl-C")
        server.serve_forever()


def _braces(label: Label) -> str:
    return "" if label is None else f'{{{label[0]}="{label[1]}"}}'
