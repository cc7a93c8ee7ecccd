"""Those who are measured: each does the job on the same records, in a folder and with a Redis of its own."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from redis import Redis

from cli import screen
from cli.servers import PROJECT, RedisServer, dying_with
from cli.setup import DATA
from clickstream.errors import Refused
from tests.bench.measure import Cost, Point, between
from tests.bench.records import Records

LAKE = "lake"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the job, or a part of it.

    `run` writes the tables into the folder's lake, and returns the points between which it was in its stride;
    `wrong` says what is not right with what it has written.
    """

    name: str
    run: Callable[[Records, Path, RedisServer], Sequence[Point]]
    wrong: Callable[[Records, Path, Redis], list[str]] | None = None
    most: int | None = None  # events, for one that would take an hour for what others do in a minute

    def check(self, records: Records) -> None:
        """Raise `Refused` unless its output is equal to the oracle's, to the last column."""
        if self.wrong is None:
            return
        screen.step(f"{self.name}: are its results the right ones?")
        with ground(records) as (folder, redis), redis.client() as client:
            self.run(records, folder, redis)
            wrong = self.wrong(records, folder / LAKE, client)
        if wrong:
            shown = "\n".join(wrong[:5])
            raise Refused(f"{self.name} is not measured, it gets {len(wrong)} things wrong:\n{shown}")

    def measure(self, records: Records) -> Cost:
        """Run it, and say what it cost per event once it was in its stride."""
        if self.most is not None:
            records = records._replace(events=min(records.events, self.most)).make()
        with ground(records) as (folder, redis):
            points = self.run(records, folder, redis)
        need_points(points, records)
        return between(points)


def need_points(points: Sequence[Point], records: Records) -> None:
    """Raise `Refused` unless there are two points, between which something can be measured."""
    if len(points) < 2:
        raise Refused(
            f"{records.events:,} events are over before two commits can be seen. Next: more of them, --events"
        )


@contextmanager
def ground(records: Records) -> Iterator[tuple[Path, RedisServer]]:
    """Lend a folder and a Redis that knows the users' names."""
    (DATA / "bench").mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=DATA / "bench") as folder,
        RedisServer(Path(folder) / "redis") as redis,
    ):
        records.load_names(redis.url)
        yield Path(folder), redis


class Program:
    """A program in a session of its own: all that it has started ends with it, and with the `with` block."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._command = command
        self.log = log
        with log.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509  # it calls the kernel and nothing of Python's
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self._process.pid

    def go(self) -> None:
        """Have a program begin that waits for a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet; `Refused` if it has failed."""
        code = self._process.poll()
        if code:
            words = (self._errors.read_text(errors="replace") or self.log.read_text(errors="replace")).strip()
            raise Refused(f"{' '.join(map(str, self._command[:3]))} … has failed:\n{words[-2000:]}")
        return code is None

    @property
    def _errors(self) -> Path:
        return self.log.with_suffix(".err")
