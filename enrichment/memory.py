"""What a worker remembers: a bounded number of answers, each for a while."""

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Answers by key, the least recently used ones forgotten first, and each when its time is up. Thread-safe."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}  # in order of last use, oldest first
        self._lock = Lock()

    def recall(self, keys: Iterable[K]) -> dict[K, V]:
        """Return what is remembered of these keys."""
        now = self._clock()
        recalled = {}
        with self._lock:
            for key in keys:
                entry = self._entries.pop(key, None)
                if entry is not None and entry[0] > now:
                    self._entries[key] = entry
                    recalled[key] = entry[1]
        return recalled

    def remember(self, answers: Mapping[K, V], seconds: float) -> None:
        """Keep these answers for so long, unless newer ones need the room."""
        expires = self._clock() + seconds
        with self._lock:
            for key, value in answers.items():
                self._entries.pop(key, None)
                self._entries[key] = (expires, value)
            while len(self._entries) > self._capacity:
                del self._entries[next(iter(self._entries))]

    def __len__(self) -> int:
        return len(self._entries)
