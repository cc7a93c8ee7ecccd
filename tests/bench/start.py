"""How long `make run` takes until the first enriched row can be read, and where that time goes."""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cli import screen
from cli.servers import PROJECT
from cli.setup import DATA
from connectors.lake import Lake
from tests.bench.measure import cpu_of, machine, median

LOOK: Final = 0.1  # seconds between two looks

_SAID: Final = {
    "everything is in place": "make, and whether all is set up",
    "starting Redis and kinesalite": "the command itself",
    "starting the job": "Redis and kinesalite",
}
_LOGGED: Final = {
    r"FileSystem .*Hadoop is not in the classpath": "Python and the JVM of the job",
    r"MiniCluster .*Starting Flink Mini Cluster": "planning",
    r"Job clickstream .* from state CREATED to RUNNING": "Flink's cluster",
    r"sdk_worker_main.py.* semi_persistent_directory": "deploying, Python workers",
}
FIRST_ROW: Final = "records, first commit"
END: Final = "the rest, stopping, the audit"
PHASES: Final = (*_SAID.values(), *_LOGGED.values(), FIRST_ROW, END)


class Start(NamedTuple):
    """When each of `PHASES` was over, in seconds since the command, and the CPU until the end by program."""

    over: Mapping[str, float]
    cpu: Mapping[str, float]

    @property
    def first_row(self) -> float:
        """Seconds until an enriched row was committed."""
        return self.over[FIRST_ROW]


def measure(events: int = 1_000) -> Start:
    """Run it once, as a person would."""
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        over: dict[str, float] = {}
        used: dict[tuple[int, str], float] = {}
        lake = Lake(str(Path(folder) / "lake"))
        began = time.time()
        environment = {**os.environ, "CLICKSTREAM_DATA": folder}
        with subprocess.Popen(
            ["make", "run", f"EVENTS={events}"],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as run:
            listening = threading.Thread(target=_listen, args=(run, lambda phase: over.setdefault(phase, time.time())))
            listening.start()
            while run.poll() is None:
                if FIRST_ROW not in over and any(lake.files("enriched")):
                    over[FIRST_ROW] = time.time()
                used |= _used(f"CLICKSTREAM_DATA={folder}")
                time.sleep(LOOK)
            listening.join()
        over[END] = time.time()
        if run.returncode or FIRST_ROW not in over:
            sys.exit(f"make run ended with code {run.returncode}, and its first rows came at {over.get(FIRST_ROW)}")
        log = next((Path(folder) / "flink" / "log").glob("*.log")).read_text()
        over |= {phase: _when(pattern, log) for pattern, phase in _LOGGED.items()}
        cpu: dict[str, float] = defaultdict(float)
        for (_, program), seconds in used.items():
            cpu[program] += seconds
        return Start({phase: over[phase] - began for phase in PHASES}, cpu)


def _listen(run: subprocess.Popen[str], is_over: Callable[[str], object]) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        for words, phase in _SAID.items():
            if words in line:
                is_over(phase)


def _used(variable: str) -> dict[tuple[int, str], float]:
    """Find the processes that have a variable in their environment: the CPU of each, in seconds."""
    used = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and variable.encode() in (entry / "environ").read_bytes():
                used[int(entry.name), (entry / "comm").read_text().strip()] = cpu_of(int(entry.name))
    return used


def _when(pattern: str, log: str) -> float:
    """Return when the last line of Flink's log was written in which this is."""
    *_, line = re.finditer(rf"^(\S+ \S+) .*{pattern}", log, re.MULTILINE)
    return datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000, help="[%(default)s]")
    parser.add_argument("--repeat", type=int, default=3, help="runs [%(default)s]")
    given = parser.parse_args()
    found = [measure(given.events) for _ in range(given.repeat)]
    rows = []
    before = [0.0] * len(found)
    for phase in PHASES:
        over = [start.over[phase] for start in found]
        took = [at - last for at, last in zip(over, before, strict=True)]
        rows.append([phase, median(took, ".1f"), f"{statistics.median(over):.1f}"])
        before = over
    screen.table(machine("apache-flink"), ["", "seconds", "over at"], rows, right=(1, 2))
    programs = sorted({program for start in found for program in start.cpu})
    spent = {program: median([start.cpu.get(program, 0.0) for start in found], ".1f") for program in programs}
    screen.out.print(
        f"\nFirst enriched row: {median([start.first_row for start in found], '.1f')} s. CPU seconds: "
        + ", ".join(f"{program} {seconds}" for program, seconds in spent.items()),
        markup=False,
    )


if __name__ == "__main__":
    main()
