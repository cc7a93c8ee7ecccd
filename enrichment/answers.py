"""What can be said of an address or a user, and who is asked: memory, then Redis, then the provider."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Final, Generic, Protocol, TypeVar

from clickstream.errors import ClickstreamError, Unavailable
from clickstream.place import GeoProvider, Place, Status, public_address
from enrichment.memory import Memory
from enrichment.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a look-up came to: the value if it was found, and in any case how it ended."""

    status: Status
    value: T | None = None

    @classmethod
    def of(cls, value: T | None) -> "Answer[T]":
        """Wrap what somebody who would know has said."""
        return cls(Status.UNKNOWN) if value is None else cls(Status.FOUND, value)


Places = dict[str, Answer[Place]]
Names = dict[str, Answer[str]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all workers know together: places (None: nobody knows) and names; what is not in there is not known yet.

    `mine` are the addresses that this worker, and no other, has now taken on to ask a metered provider about.
    """

    places: Mapping[str, Place | None]
    names: Mapping[str, str]
    mine: Collection[str] = ()


class SharedAnswers(Protocol):
    """The workers' common memory. Every method is one round trip, and raises `Unavailable` when it is down or slow."""

    def read(self, addresses: Collection[str], user_ids: Collection[str], *, take_on: bool) -> Shared:
        """Look everything up; with `take_on`, take on the addresses nobody knows and nobody has taken on."""

    def write(self, places: Mapping[str, Place | None]) -> None:
        """Keep what a provider said, misses for a shorter time, and let go of these addresses."""

    def let_go(self, addresses: Collection[str]) -> None:
        """Let others ask about these addresses, which this worker has taken on and could not find out about."""


class Answers(Protocol):
    """Whoever can place addresses and name users: one call a batch, each key answered."""

    def find(self, addresses: Collection[str], user_ids: Collection[str]) -> tuple[Places, Names]:
        """Answer every address and every user id."""


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

    places: Memory[str, Answer[Place]]
    names: Memory[str, Answer[str]]
    shared: SharedAnswers
    provider: GeoProvider
    background: Background
    budget: float = 0.2
    remember: float = 600.0  # seconds in this worker's memory
    remember_misses: float = 5.0  # seconds: a new sign-up's name, or a provider that is back, shows up this soon
    clock: Callable[[], float] = time.monotonic
    metrics: Metrics = field(default_factory=Metrics)

    def find(self, addresses: Collection[str], user_ids: Collection[str]) -> tuple[Places, Names]:
        """Answer every address and every user id, in at most one round trip for what this worker does not remember."""
        deadline = self.clock() + self.budget
        places, names = self.places.recall(addresses), self.names.recall(user_ids)
        spelled = {text: public_address(text) for text in addresses if text not in places}
        unplaced = {address for address in spelled.values() if address is not None}
        unnamed = [user_id for user_id in user_ids if user_id not in names]
        self.metrics.count("place_hits", len(places), layer="memory")
        self.metrics.count("name_hits", len(names), layer="memory")

        try:
            known = Shared({}, {})
            if unplaced or unnamed:
                known = self.shared.read(unplaced, unnamed, take_on=self.provider.metered)
        except Unavailable as down:
            log.warning("going on without Redis: %s", down)
            self.metrics.count("redis_errors")
            new_names = dict.fromkeys(unnamed, _NO_NAME)
            located = dict.fromkeys(unplaced, _UNAVAILABLE) if self.provider.metered else self._ask(unplaced)
        else:
            new_names = {user_id: Answer.of(known.names.get(user_id)) for user_id in unnamed}
            located = {address: Answer.of(place) for address, place in known.places.items()}
            unplaced -= located.keys()
            self.metrics.count("place_hits", len(located), layer="redis")
            self.metrics.count("name_hits", len(known.names), layer="redis")
            if unplaced:
                metered = self.provider.metered
                located |= self._ask_metered(unplaced, known.mine, deadline) if metered else self._ask(unplaced)

        new_places = {text: _NOT_PUBLIC if address is None else located[address] for text, address in spelled.items()}
        self._keep(self.places, new_places)
        self._keep(self.names, new_names)
        return {**places, **new_places}, {**names, **new_names}

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
        self._keep(self.places, answers)
        return answers

    def _ask_metered(self, addresses: Collection[str], mine: Collection[str], deadline: float) -> Places:
        answers = dict.fromkeys(addresses, _PENDING)
        if not mine:
            return answers
        asking = self.background.start(lambda: self._ask(mine))
        if asking is None:
            with suppress(Unavailable):  # then the leases run out by themselves
                self.shared.let_go(mine)
            return {**answers, **dict.fromkeys(mine, _UNAVAILABLE)}
        try:
            return {**answers, **asking.result(timeout=max(0.0, deadline - self.clock()))}
        except FutureTimeout:
            return answers

    def _keep(self, memory: Memory[str, Answer[T]], answers: Mapping[str, Answer[T]]) -> None:
        found = {key: answer for key, answer in answers.items() if answer.status is Status.FOUND}
        missed = {k: a for k, a in answers.items() if a.status in (Status.UNKNOWN, Status.UNAVAILABLE)}
        memory.remember(found, self.remember)
        memory.remember(missed, self.remember_misses)


_NOT_PUBLIC: Final[Answer[Place]] = Answer(Status.UNKNOWN)
_PENDING: Final[Answer[Place]] = Answer(Status.PENDING)
_UNAVAILABLE: Final[Answer[Place]] = Answer(Status.UNAVAILABLE)
_NO_NAME: Final[Answer[str]] = Answer(Status.UNAVAILABLE)
