"""The places that a worker remembers: each once, with its columns ready, and of addresses just which one."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress, islice
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa

from clickstream.batch import Mask, Numbers
from clickstream.place import Answer, Place, Status
from enrichment.memory import Memory

_COLUMNS: Final = ("country", "region", "city", "location", "geo_status")
_AS_MANY_ADDRESSES: Final = 2  # so many times as many places as addresses are kept before they are sorted out


class _Numbers(dict[Answer[Place], int]):
    """A number for every answer that is asked for, from 0."""

    def __missing__(self, answer: Answer[Place]) -> int:
        self[answer] = number = len(self)
        return number


class Atlas:
    """Answers about addresses, numbered as they come, and the columns that they are in a table. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._columns = [pa.array([], pa.string()) for _ in _COLUMNS]
        self._lock = Lock()

    def number(self, answers: Iterable[Answer[Place]]) -> list[int]:
        """Return the numbers of these answers."""
        with self._lock:
            return list(map(self._numbers.__getitem__, answers))

    def columns(self, numbers: Numbers) -> dict[str, pa.Array]:
        """Lay out the answers with these numbers, a row each."""
        with self._lock:
            if new := list(islice(self._numbers, len(self._columns[0]), None)):
                self._columns = [
                    pa.concat_arrays([column, pa.array(values, pa.string())])
                    for column, values in zip(self._columns, zip(*map(_row, new), strict=True), strict=True)
                ]
            columns = self._columns
        rows = pa.array(numbers)
        return {name: column.take(rows) for name, column in zip(_COLUMNS, columns, strict=True)}

    def __len__(self) -> int:
        return len(self._numbers)


class Located:
    """What is known of some addresses, in their order."""

    def __init__(self, atlas: Atlas, numbers: Numbers, known: Mask) -> None:
        self._atlas = atlas
        self._numbers = numbers
        self.known = known

    def missing(self, addresses: Sequence[str]) -> list[str]:
        """Return those of the addresses that nothing is known of."""
        return list(compress(addresses, (~self.known).tolist()))

    def fill(self, answers: Iterable[Answer[Place]]) -> None:
        """Add what was missing, in order."""
        self._numbers[~self.known] = self._atlas.number(answers)

    def columns(self, rows: Numbers) -> dict[str, pa.Array]:
        """Lay out what is known: country, region, city, location and geo_status of the addresses at these places."""
        return self._atlas.columns(self._numbers[rows])


class PlaceMemory:
    """Remembers addresses as `Memory` does, and begins anew when there are more places than addresses could need."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._begin()

    def recall(self, addresses: Sequence[str]) -> Located:
        """Return what is remembered of these addresses."""
        memory, atlas = self._current
        return Located(atlas, *memory.recall(addresses))

    def remember(self, answers: Mapping[str, Answer[Place]], seconds: float) -> None:
        """Keep these answers for so long, unless newer ones need the room."""
        memory, atlas = self._current
        memory.remember(dict(zip(answers, atlas.number(answers.values()), strict=True)), seconds)
        if len(atlas) > _AS_MANY_ADDRESSES * self._capacity:
            self._begin()

    def _begin(self) -> None:
        self._current = Memory[int](self._capacity, self._clock, kind=np.int64), Atlas()


def _row(answer: Answer[Place]) -> tuple[str | None, ...]:
    place, status = answer.value, answer.status
    if place is None:
        return None, None, None, _NOWHERE.get(status), status
    return place.country, place.region, place.city, str(place), status


_NOWHERE: Final = {Status.UNKNOWN: "unknown"}  # else it is not known whether it is known, and Redis keeps what it has
