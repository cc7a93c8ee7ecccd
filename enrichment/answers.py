"""What can be said of an address or a user, and who is asked: memory, then Redis, then the provider."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from threading import Semaphore
from typing import Final, Protocol, TypeVar

import numpy as np

from clickstream.errors import ClickstreamError, Unavailable
from clickstream.place import Answer, GeoProvider, Place, Status, public_address
from enrichment.memory import Memory
from enrichment.metrics import Metrics
from enrichment.places import Located, PlaceMemory
from enrichment.shared import Shared, SharedAnswers

log = logging.getLogger(__name__)

T = TypeVar("T")

Places = dict[str, Answer[Place]]
Names = dict[str, Answer[str]]


class Answers(Protocol):
    """Whoever can place addresses and name users: one call a batch."""

    def find(self, addresses: Sequence[str], user_ids: Sequence[str]) -> tuple[Located, list[Answer[str]]]:
        """Answer every address and every user id, in their order."""


class Background:
    """A few threads that finish slow look-ups: a bounded number at a time, and no failure of theirs goes unseen."""

    def __init__(self, threads: int = 4, waiting: int = 64) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answers")
        self._room = Semaphore(threads + waiting)
        self._bugs: list[BaseException] = []

    def start(self, work: Callable[[], T]) -> "Future[T] | None":
        """Begin the work, or return None when too much is under way; raise what an earlier piece of work died of."""
        if self._bugs:
            raise self._bugs[0]
        if not self._room.acquire(blocking=False):
            return None
        future = self._pool.submit(work)
        future.add_done_callback(self._done)
        return future

    def close(self) -> None:
        """Finish what has begun, drop what has not."""
        self._pool.shutdown(cancel_futures=True)

    def _done(self, future: "Future[T]") -> None:
        self._room.release()
        if not future.cancelled() and (bug := future.exception()) is not None:
            self._bugs.append(bug)


@dataclass(frozen=True, slots=True)
class LayeredAnswers:
    """Memory in front of Redis in front of a provider.

    A batch waits no longer than `budget` seconds for a metered provider; what takes longer is finished in the
    background into memory and Redis, and its rows say `pending`. When Redis is down, an .mmdb still answers, while a
    metered provider is left alone: without Redis nobody can see to it that an address is asked once.
    """

    places: PlaceMemory
    names: Memory[Answer[str]]
    shared: SharedAnswers
    provider: GeoProvider
    background: Background
    budget: float = 0.2
    remember: float = 600.0  # seconds in this worker's memory
    remember_misses: float = 5.0  # seconds: a new sign-up's name, or a provider that is back, shows up this soon
    clock: Callable[[], float] = time.monotonic
    metrics: Metrics = field(default_factory=Metrics)

    def find(self, addresses: Sequence[str], user_ids: Sequence[str]) -> tuple[Located, list[Answer[str]]]:
        """Answer every address and every user id, in at most one round trip for what this worker does not remember."""
        deadline = self.clock() + self.budget
        located = self.places.recall(addresses)
        names, named = self.names.recall(user_ids)
        self.metrics.count("place_hits", int(located.known.sum()), layer="memory")
        self.metrics.count("name_hits", int(named.sum()), layer="memory")
        unplaced = located.missing(addresses)
        unnamed = list(compress(user_ids, (~named).tolist()))
        if unplaced or unnamed:
            new_places, new_names = self._look_up(unplaced, unnamed, deadline)
            located.fill(map(new_places.__getitem__, unplaced))
            names[~named] = np.fromiter(map(new_names.__getitem__, unnamed), object, len(unnamed))
        return located, names.tolist()

    def _look_up(self, texts: Sequence[str], user_ids: Sequence[str], deadline: float) -> tuple[Places, Names]:
        """Answer what is not remembered, and remember it."""
        spelled = {text: public_address(text) for text in texts}
        unplaced = {address for address in spelled.values() if address is not None}
        try:
            known = Shared({}, {})
            if unplaced or user_ids:
                known = self.shared.read(unplaced, user_ids, take_on=self.provider.metered)
        except Unavailable as down:
            log.warning("going on without Redis: %s", down)
            self.metrics.count("redis_errors")
            names = dict.fromkeys(user_ids, _NO_NAME)
            located = dict.fromkeys(unplaced, _UNAVAILABLE) if self.provider.metered else self._ask(unplaced)
        else:
            names = {user_id: Answer.of(known.names.get(user_id)) for user_id in user_ids}
            located = {address: Answer.of(place) for address, place in known.places.items()}
            unplaced -= located.keys()
            self.metrics.count("place_hits", len(located), layer="redis")
            self.metrics.count("name_hits", len(known.names), layer="redis")
            if unplaced:
                metered = self.provider.metered
                located |= self._ask_metered(unplaced, known.mine, deadline) if metered else self._ask(unplaced)

        places = {text: _NOT_PUBLIC if address is None else located[address] for text, address in spelled.items()}
        self._keep(self.places.remember, places)
        self._keep(self.names.remember, names)
        return places, names

    def _ask(self, addresses: Collection[str]) -> Places:
        """Ask the provider, and tell the others what it said."""
        self.metrics.count("provider_calls")
        self.metrics.count("provider_addresses", len(addresses))
        try:
            with self.metrics.timed("provider_millis"):
                said = self.provider.find(sorted(addresses))
        except ClickstreamError as trouble:
            log.warning("going on without the geo provider: %s", trouble)
            self.metrics.count("provider_errors")
            said = {}
        unanswered = [address for address in addresses if address not in said]
        try:
            if said:
                self.shared.write(said)
            if unanswered and self.provider.metered:
                self.shared.let_go(unanswered)
        except Unavailable as down:
            log.warning("what the geo provider said is not in Redis: %s", down)
            self.metrics.count("redis_errors")
        answers = {address: Answer.of(place) for address, place in said.items()}
        answers.update(dict.fromkeys(unanswered, _UNAVAILABLE))
        return answers

    def _ask_metered(self, addresses: Collection[str], mine: Collection[str], deadline: float) -> Places:
        answers = dict.fromkeys(addresses, _PENDING)
        if not mine:
            return answers
        asking = self.background.start(lambda: self._ask_and_keep(mine))
        if asking is None:
            with suppress(Unavailable):  # then the leases run out by themselves
                self.shared.let_go(mine)
            return {**answers, **dict.fromkeys(mine, _UNAVAILABLE)}
        try:
            return {**answers, **asking.result(timeout=max(0.0, deadline - self.clock()))}
        except FutureTimeout:
            return answers

    def _ask_and_keep(self, addresses: Collection[str]) -> Places:
        """Ask in the background: by the time there is an answer, the batch may be over."""
        answers = self._ask(addresses)
        self._keep(self.places.remember, answers)
        return answers

    def _keep(
        self, remember: Callable[[Mapping[str, Answer[T]], float], None], answers: Mapping[str, Answer[T]]
    ) -> None:
        found = {key: answer for key, answer in answers.items() if answer.status is Status.FOUND}
        missed = {k: a for k, a in answers.items() if a.status in (Status.UNKNOWN, Status.UNAVAILABLE)}
        remember(found, self.remember)
        remember(missed, self.remember_misses)


_NOT_PUBLIC: Final[Answer[Place]] = Answer(Status.UNKNOWN)
_PENDING: Final[Answer[Place]] = Answer(Status.PENDING)
_UNAVAILABLE: Final[Answer[Place]] = Answer(Status.UNAVAILABLE)
_NO_NAME: Final[Answer[str]] = Answer(Status.UNAVAILABLE)
