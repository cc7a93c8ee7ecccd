"""What a worker remembers: a bounded number of answers, each for a while."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from itertools import compress, islice, repeat
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import numpy as np

from clickstream.batch import Mask, Numbers

V = TypeVar("V")

_AT_A_TIME: Final = 16  # one key in so many is forgotten at once, since finding the oldest means looking at all
_FREE: Final = 2**62  # in the place of which call last used a slot


class Memory(Generic[V]):
    """Answers by key, the least recently used ones forgotten first, and each when its time is up. Thread-safe.

    A key costs one look into a dict. All else is in arrays, at the number of the key's slot; the last slot stands for
    all keys that have none, and its time is always up. Answers are objects, or numbers if `kind` says so.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic, kind: type = object) -> None:
        self._capacity = capacity
        self._clock = clock
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []  # by slot
        self._free: list[int] = []  # slots whose keys were forgotten
        self._values: np.ndarray[Any, Any] = np.zeros(capacity + 1, kind)
        self._expires = np.full(capacity + 1, -math.inf)
        self._used = np.full(capacity + 1, _FREE)  # by which call last
        self._calls = 0
        self._lock = Lock()

    def recall(self, keys: Collection[str]) -> "tuple[np.ndarray[Any, Any], Mask]":
        """Return the answer to each key, and whether there is one: where not, it means nothing."""
        with self._lock:
            slots = self._use(keys)
            return self._values[slots], self._expires[slots] > self._clock()

    def remember(self, answers: Mapping[str, V], seconds: float) -> None:
        """Keep these answers for so long, unless newer ones need the room."""
        kept = dict(islice(answers.items(), max(0, len(answers) - self._capacity), None))
        if not kept:
            return
        with self._lock:
            slots = self._use(kept)
            is_new = slots == self._capacity
            slots[is_new] = taken = self._take_slots(int(np.count_nonzero(is_new)))
            for key, slot in zip(compress(kept, is_new.tolist()), taken, strict=True):
                self._slots[key] = slot
                self._keys[slot] = key
            self._used[slots] = self._calls
            self._expires[slots] = self._clock() + seconds
            self._values[slots] = np.fromiter(kept.values(), self._values.dtype, len(kept))

    def __len__(self) -> int:
        return int(np.count_nonzero(self._expires > self._clock()))

    def _use(self, keys: Collection[str]) -> Numbers:
        """Find the keys' slots, and note that they are used."""
        self._calls += 1
        slots = np.fromiter(map(self._slots.get, keys, repeat(self._capacity)), np.int64, len(keys))
        self._used[slots] = self._calls
        return slots

    def _take_slots(self, count: int) -> list[int]:
        """Return slots: those that no key has had yet, then those of keys that are forgotten for it."""
        unused = range(len(self._keys), min(self._capacity, len(self._keys) + count))
        self._keys += [""] * len(unused)
        rest = count - len(unused)
        if rest > len(self._free):
            self._forget(rest - len(self._free))
        return [*unused, *(self._free.pop() for _ in range(rest))]

    def _forget(self, count: int) -> None:
        """Forget so many keys or some more, but none of this very call."""
        others = int(np.count_nonzero(self._used[:-1] < self._calls))
        count = min(max(count, self._capacity // _AT_A_TIME), others)
        oldest = np.argpartition(self._used[:-1], count - 1)[:count]
        self._used[oldest] = _FREE
        self._expires[oldest] = -math.inf
        for slot in oldest.tolist():
            del self._slots[self._keys[slot]]
        self._free += oldest.tolist()
