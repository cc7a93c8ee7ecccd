"""What work costs: processor time by kind of process, memory, and progress, between two points of one run."""

import os
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypeVar

KINDS = ("jvm", "python", "redis")
TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
SECONDS_BETWEEN = 0.25  # two looks, which take a core that is measured a hundredth of its time

T = TypeVar("T")
U = TypeVar("U")


class Memory(NamedTuple):
    """Resident bytes of all processes but Redis, and of the largest that runs Python."""

    total: int = 0
    python: int = 0

    def or_more(self, other: "Memory") -> "Memory":
        """Return the most there was of each."""
        return Memory(max(self.total, other.total), max(self.python, other.python))


class Point(NamedTuple):
    """Where a run was at a moment."""

    at: float  # seconds
    processed: int
    cpu: Mapping[str, float]  # seconds so far, by kind of process
    memory: Memory  # the most so far


class Cost(NamedTuple):
    """What a number of events cost."""

    events: int
    seconds: float
    cpu: Mapping[str, float]  # seconds, by kind of process
    memory: Memory = Memory()  # the most there was at a time

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def per_core(self) -> float:
        """Events for each second of a core."""
        return 1e6 / self.micros()

    def micros(self, *kinds: str) -> float:
        """Microseconds of CPU an event, which are seconds a million events, of all kinds if none is named."""
        return sum(self.cpu.get(kind, 0.0) for kind in kinds or KINDS) / self.events * 1e6


def between(points: Sequence[Point], first: int = 0, last: int = -1) -> Cost:
    """Return what lies between two points of a run."""
    a, b = points[first], points[last]
    cpu = {kind: b.cpu[kind] - a.cpu[kind] for kind in KINDS}
    return Cost(b.processed - a.processed, b.at - a.at, cpu, reduce(Memory.or_more, (point.memory for point in points)))


def watch(
    sessions: Collection[int], redis: int, processed: Callable[[], int], running: Callable[[], bool]
) -> Iterator[Point]:
    """Look at a run until it ends: yield a point whenever it has come further, and one when it is not running any more.

    `sessions` are those of its processes; `processed` says how far it is, negative while it is not ready to begin.
    """
    before, memory = -1, Memory()
    going = True
    while going:
        going = running()
        count = processed()
        cpu, resident = usage(sessions, redis)
        memory = memory.or_more(resident)
        if count > before or (count >= 0 and not going):
            before = count
            yield Point(time.monotonic(), count, cpu, memory)
        if going:
            time.sleep(SECONDS_BETWEEN)


def usage(sessions: Collection[int], redis: int) -> tuple[Mapping[str, float], Memory]:
    """Sum up what the processes of some sessions, and Redis, have used so far in seconds, and the memory they have."""
    used: dict[str, float] = defaultdict(float, redis=cpu_of(redis))
    memory = Memory()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) in sessions:
                kind = "jvm" if (entry / "comm").read_text() == "java\n" else "python"
                used[kind] += cpu_of(int(entry.name))
                resident = int((entry / "statm").read_text().split()[1]) * PAGE
                memory = Memory(memory.total + resident, max(memory.python, resident if kind == "python" else 0))
    return used, memory


def cpu_of(pid: int) -> float:
    """Return what a process has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def in_turn(contenders: Iterable[T], repeat: int, run: Callable[[T], U]) -> list[list[U]]:
    """Run each contender so many times, all of them once before one comes again: the machine's own speed drifts."""
    contenders = list(contenders)
    results: list[list[U]] = [[] for _ in contenders]
    for _ in range(repeat):
        for contender, so_far in zip(contenders, results, strict=True):
            so_far.append(run(contender))
    return results


def median(values: Sequence[float], form: str = ",.0f", *, spread: bool = True) -> str:
    """Write the median, and how far the values are apart if there are several."""
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}}–{max(values):{form}})" if spread and len(values) > 1 else middle


def megabytes(memory: Memory) -> list[int]:
    """Lay out memory as two cells of a table."""
    return [round(memory.total / MEGABYTE), round(memory.python / MEGABYTE)]


def machine(*packages: str) -> str:
    """Say what was measured on, and with which versions."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), "CPU")
    versions = " ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}, {versions}, commit {_commit()}"


def _commit() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout
    return answer.strip() or "unknown"
