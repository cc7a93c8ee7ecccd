"""Traffic to try decisions on, a line a minute: recorded in a file, or made up."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from clickstream.errors import Refused

COLUMNS: Final = ("minute", "bytes", "records")
MINUTE: Final = timedelta(minutes=1)
EVENT_BYTES: Final = 330
"""About what a made-up event weighs with its partition key."""

MOST: Final = 1e15
"""Bytes or records a minute, more than all of Kinesis takes."""

LONGEST: Final = 100 * 24 * 60  # minutes


class Load(NamedTuple):
    """What producers want to put into a stream within the minute that begins at `minute`."""

    minute: datetime
    bytes: float
    records: float


def read_trace(path: Path) -> list[Load]:
    """Read a CSV with the columns minute (UTC, 2026-11-27T00:00), bytes and records; a minute left out had no traffic.

    What is no trace is `Refused` with its line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            loads = list(_lines(path, csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"cannot read a trace from {path} ({error}). Next: check the path") from error
    if not loads:
        raise Refused(f"{path} has no minutes in it. Next: record some, clickstream scaling record --to {path}")
    return list(_without_gaps(path, loads))


def write_trace(loads: Iterable[Load], path: Path) -> int:
    """Write what `read_trace` reads; return how many minutes."""
    rows = [[f"{load.minute:%Y-%m-%dT%H:%M}", round(load.bytes), round(load.records)] for load in loads]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    except OSError as error:
        raise Refused(f"cannot write {path} ({error.strerror}). Next: give another place with --to") from error
    return len(rows)


def _lines(path: Path, lines: "csv.DictReader[str]") -> Iterator[Load]:
    if set(COLUMNS) - set(lines.fieldnames or ()):
        raise _refused(path, 1, f"does not name the columns {','.join(COLUMNS)}")
    for line in lines:
        minute, number = None, []
        with suppress(ValueError, TypeError):
            minute = datetime.fromisoformat(line["minute"])
            minute = minute.astimezone(UTC) if minute.tzinfo else minute.replace(tzinfo=UTC)
        with suppress(ValueError, TypeError):
            number = [float(line[column]) for column in ("bytes", "records")]
        if minute is None or minute.second or minute.microsecond:
            raise _refused(path, lines.line_num, "has no minute such as 2026-11-27T00:00")
        if len(number) < 2 or not all(0 <= each <= MOST for each in number):
            raise _refused(path, lines.line_num, f"has bytes and records that are no numbers from 0 to {MOST:.0e}")
        yield Load(minute, *number)


def _without_gaps(path: Path, loads: list[Load]) -> Iterator[Load]:
    for index, (load, following) in enumerate(pairwise([*loads, loads[-1]])):
        yield load
        if index == len(loads) - 1:
            return
        if following.minute <= load.minute:
            raise _refused(path, index + 3, "is not later than the one before it")
        missing = (following.minute - load.minute) // MINUTE - 1
        if missing > LONGEST:
            raise _refused(path, index + 3, f"comes more than {LONGEST:,} minutes after the one before it")
        yield from (Load(load.minute + MINUTE * (step + 1), 0.0, 0.0) for step in range(missing))


def _refused(path: Path, line: int, why: str) -> Refused:
    return Refused(f"{path}, line {line}: {why}. Next: correct it")


# Made up

_START: Final = datetime(2026, 11, 23, tzinfo=UTC)  # the Monday before Black Friday
_HOUR: Final = 60
_DAY: Final = 24 * _HOUR


def _daily(minute: int, random: Random) -> float:
    """Make a shop's day: a tenth of the evening's traffic at 4 in the morning."""
    hour = minute % _DAY / _HOUR
    return (0.55 - 0.45 * math.cos((hour - 4) / 12 * math.pi)) * random.uniform(0.93, 1.07)


def _black_friday(minute: int, random: Random) -> float:
    """Make a usual week at a twelfth, and on Friday from midnight twelve times as much within a quarter of an hour."""
    into = minute - 4 * _DAY
    rush = min(1.0, max(0.0, into / 15)) if into < 20 * _HOUR else max(0.0, 1 - (into - 20 * _HOUR) / 240)
    return _daily(minute, random) / 12 * (1 + 11 * rush) + 0.25 * rush * random.uniform(0.9, 1.1)


def _spike(minute: int, random: Random) -> float:
    """Be quiet, but each day at 19:00 a television spot brings twenty times as much for twelve minutes."""
    into = minute % _DAY - 19 * _HOUR
    return (1.0 if 0 <= into < 12 else 0.05) * random.uniform(0.93, 1.07)


def _growth(minute: int, random: Random) -> float:
    """Double each day, from a sixty-fourth up."""
    return float(2 ** (minute / _DAY) / 64 * random.uniform(0.95, 1.05))


def _sawtooth(minute: int, random: Random) -> float:
    """Go up and down every two hours, which is to tempt into flapping."""
    return (0.2 + 0.8 * abs(minute % 120 / 60 - 1)) * random.uniform(0.97, 1.03)


def _flat(minute: int, random: Random) -> float:  # noqa: ARG001
    """Stay the same all day."""
    return random.uniform(0.95, 1.0)


class _Pattern(NamedTuple):
    days: int
    share: Callable[[int, Random], float]


MADE_UP: Final = {
    "black-friday": _Pattern(7, _black_friday),
    "daily": _Pattern(3, _daily),
    "flat": _Pattern(1, _flat),
    "growth": _Pattern(6, _growth),
    "sawtooth": _Pattern(2, _sawtooth),
    "spike": _Pattern(3, _spike),
}


def made_up(name: str, peak: float, seed: int = 1, event_bytes: float = EVENT_BYTES) -> list[Load]:
    """Make up a trace whose busiest times see about `peak` events a second; the same seed makes the same one."""
    if name not in MADE_UP:
        raise Refused(f"there is no made-up traffic {name!r}. Next: choose one of {', '.join(MADE_UP)}")
    pattern, random = MADE_UP[name], Random(seed)  # noqa: S311
    loads = []
    for minute in range(pattern.days * _DAY):
        records = round(max(0.0, pattern.share(minute, random)) * peak * 60)
        loads.append(Load(_START + minute * MINUTE, records * event_bytes * random.uniform(0.98, 1.02), records))
    return loads
