"""What an operator wants to know of the batch function: counted here, shown by whoever runs it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Final, NamedTuple

PURPOSE: Final = {
    "decoded": "records that are events",
    "rejected": "records that are none, by reason",
    "suppressed": "events that repeat one, with de-duplication",
    "offers": "events that have earned an offer",
    "place_hits": "addresses whose place was known, by layer: memory or redis; once a batch",
    "name_hits": "users whose name was known, by layer: memory or redis; once a batch",
    "provider_calls": "calls of the geo provider",
    "provider_addresses": "addresses it was asked about",
    "provider_errors": "calls it did not answer",
    "provider_millis": "how long the calls took in all",
    "redis_errors": "trips to Redis that came to nothing",
    "last_access_writes": "users whose last access Redis was told",
    "last_access_lost": "users whose last access it could not be told",
    "batches": "calls of the batch function",
    "batch_millis": "how long they took in all",
    "behind_millis": "how long before its batch the newest record of it arrived",
    "provider_breaker": "0 while calls go through, 1 while one is tried, 2 while the provider is left alone",
    "redis_breaker": "the same of Redis",
}
GAUGES: Final = ("behind_millis", "provider_breaker", "redis_breaker")


class Key(NamedTuple):
    """What is counted; `label` tells kinds of it apart, such as ("reason", "empty")."""

    name: str
    label: tuple[str, str] | None = None


class Metrics:
    """Counts and present values of one process, none of them of a user or a record alone. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._counts: Counter[Key] = Counter()
        self._values: dict[str, Callable[[], int]] = {}

    def count(self, name: str, by: int = 1, **label: str) -> None:
        """Add to a count; at most one label."""
        if by:
            key = Key(name, next(iter(label.items()), None))
            with self._lock:
                self._counts[key] += by

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the milliseconds that something takes, however it ends."""
        began = self._clock()
        try:
            yield
        finally:
            self.count(name, round((self._clock() - began) * 1000))

    def watch(self, name: str, value: Callable[[], int]) -> None:
        """Have a present value asked for whenever it is wanted."""
        self._values[name] = value

    def set(self, name: str, value: int) -> None:
        """Set a present value."""
        self._values[name] = lambda: value

    def take(self) -> Mapping[Key, int]:
        """Return what was counted since it was last taken."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken

    def value(self, name: str) -> int:
        """Return a present value, 0 if nobody has said."""
        return self._values.get(name, int)()
