"""`clickstream metrics`: what the running job counts, in the text form that Prometheus scrapes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli import screen
from cli.servers import LOOPBACK
from cli.setup import DATA
from clickstream.errors import ClickstreamError, Refused
from enrichment.metrics import GAUGES, PURPOSE
from flink_app.state import REST

if TYPE_CHECKING:
    from connectors.flink_rest import FlinkRest, Label
    from connectors.lake import Lake

_OLDEST: Final = ("of", "oldest")
_NEWEST: Final = ("of", "newest")
DELAY: Final = "commit_delay_seconds"
_PURPOSE: Final = {**PURPOSE, DELAY: "how long the oldest and the newest record of the last enriched file took into it"}


@dataclass(frozen=True)
class Meters:
    """What a running job counts, and how long records took into the lake."""

    flink: "FlinkRest"
    lake: "Lake"

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
                lines += [f"{full}{_braces(label)} {value}" for label, value in sorted(some.items(), key=str)]
        return "".join(f"{line}\n" for line in lines)

    def words(self) -> str:
        """Say how long records take into the lake, and what is in trouble."""
        counted = self.flink.metrics(GAUGES)
        parts = [f"{delay:.1f} s until committed" for (_, label), delay in self._delay().items() if label == _OLDEST]
        rejected = sum(count for (name, _), count in counted.items() if name == "rejected")
        parts.append(f"{rejected:,} rejected")
        parts.append(f"{counted.get(('offers', None), 0):,} offers")
        for name, who in (("provider_errors", "geo provider"), ("redis_errors", "Redis")):
            if count := counted.get((name, None)):
                parts.append(f"{who} failed {count:,} times")
        for name, who in (("provider_breaker", "geo provider"), ("redis_breaker", "Redis")):
            if counted.get((name, None)):
                parts.append(f"{who} is left alone")
        return "".join(f" · {part}" for part in parts)

    def _delay(self) -> "Mapping[tuple[str, Label], float]":
        """Look at the file that was committed last, of this hour's and the last one's."""
        now = datetime.now(UTC)
        hours = [(now - timedelta(hours=back)).strftime("year=%Y/month=%m/day=%d/hour=%H") for back in (0, 1)]
        files = [file for hour in hours for file in self.lake.files(f"enriched/{hour}")]
        last = max(files, key=lambda file: file.written, default=None)
        if last is None or (arrivals := self.lake.arrivals(last)) is None:
            return {}
        oldest, newest = ((last.written - moment).total_seconds() for moment in arrivals)
        return {(DELAY, _OLDEST): max(oldest, 0.0), (DELAY, _NEWEST): max(newest, 0.0)}


class Glance:
    """The most telling of a job's metrics in a few words, looked up every few seconds; none if it does not answer."""

    def __init__(
        self, folder: Path, lake: "Lake", *, seconds: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._lake = lake
        self._seconds = seconds
        self._clock = clock
        self._due = float("-inf")
        self._words = ""

    def __str__(self) -> str:
        """Say it, to be put behind something else."""
        from connectors.flink_rest import FlinkRest  # noqa: PLC0415

        if self._clock() >= self._due and (url := rest_of_run(self._folder)) is not None:
            try:
                self._words = Meters(FlinkRest(url, timeout=1), self._lake).words()
            except ClickstreamError:
                self._words = ""
            self._due = self._clock() + self._seconds
        return self._words


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
    from connectors.flink_rest import FlinkRest  # noqa: PLC0415  # HTTP and Arrow take a moment
    from connectors.lake import Lake  # noqa: PLC0415

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


def _braces(label: "Label") -> str:
    return "" if label is None else f'{{{label[0]}="{label[1]}"}}'
