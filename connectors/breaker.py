"""Leaving the other side alone for a while once it keeps failing."""

import math
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from clickstream.errors import Refused, Unavailable

T = TypeVar("T")


class State(StrEnum):
    """What happens to the next call."""

    CLOSED = "closed"  # it goes through
    OPEN = "open"  # it is `Unavailable` at once
    HALF_OPEN = "half_open"  # it, or one before it, goes through alone to see whether the other side is back


class CircuitBreaker:
    """Lets calls through until so many have failed in a row, then none for some seconds, then one at a time.

    The first success lets all through again. Whoever was allowed a call reports `success` or `failure`, or uses `call`;
    a trial nobody reports on is given up after `open_seconds`, so that a lost thread does not keep the door shut.
    Threads may share it.
    """

    def __init__(
        self,
        failures: int = 5,
        open_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "the other side",
    ) -> None:
        self._most = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._failed = 0  # in a row
        self._closed_until: float | None = None  # None: calls go through
        self._trying = False

    def call(self, what: Callable[[], T]) -> T:
        """Do it if it is allowed. A `Refused` is an answer too, so it counts as a success; all else raised does not."""
        self.allow()
        try:
            answer = what()
        except Refused:
            self.success()
            raise
        except BaseException:
            self.failure()
            raise
        self.success()
        return answer

    def allow(self) -> None:
        """Return if a call may go through now; else raise `Unavailable`, which says when the next one may."""
        with self._lock:
            if self._closed_until is None:
                return
            now = self._clock()
            if now >= self._closed_until:
                self._trying = True
                self._closed_until = now + self._open_seconds
                return
            why = "is being tried again after it failed" if self._trying else "has failed and is left alone"
            seconds = math.ceil(self._closed_until - now)
        raise Unavailable(f"{self._name} {why}: the next try is in {seconds} s at the latest")

    def success(self) -> None:
        """Report that the other side answered; one that was asked to rest goes on resting."""
        with self._lock:
            self._failed = 0
            if self._trying:
                self._closed_until, self._trying = None, False

    def failure(self, retry_after: float | None = None) -> None:
        """Report that it failed; with `retry_after`, that it asks to be left alone for so many seconds from now on."""
        with self._lock:
            self._failed += 1
            rest = retry_after
            if rest is None and (self._trying or (self._closed_until is None and self._failed >= self._most)):
                rest = self._open_seconds
            if rest is None:
                return
            until = self._clock() + rest
            earlier = self._closed_until if self._closed_until is not None and not self._trying else until
            self._closed_until, self._trying = max(until, earlier), False

    @property
    def rest(self) -> float:
        """Seconds until a call may go through; 0 if one may now."""
        with self._lock:
            return 0.0 if self._closed_until is None else max(0.0, self._closed_until - self._clock())

    @property
    def state(self) -> State:
        """What would happen to a call now; for metrics, since another thread may change it at once."""
        with self._lock:
            if self._closed_until is None:
                return State.CLOSED
            return State.HALF_OPEN if self._trying or self._clock() >= self._closed_until else State.OPEN
