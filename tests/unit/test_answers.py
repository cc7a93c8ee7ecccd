"""Memory, then Redis, then the provider: who is asked, how often, and what a row says meanwhile."""

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from clickstream.errors import Unavailable
from clickstream.place import Answer, Place, Status
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.places import PlaceMemory

US = Place("US", "Ohio", "Columbus")
ADDRESS, OTHER = "8.8.8.8", "9.9.9.9"


def worker(shared: InMemoryShared, geo: object, **options: float) -> LayeredAnswers:
    return LayeredAnswers(PlaceMemory(100), Memory(100), shared, geo, Background(threads=1, waiting=0), **options)  # type: ignore[arg-type]


def find(
    answers: LayeredAnswers, addresses: Sequence[str], user_ids: Sequence[str] = ()
) -> tuple[dict[str, Answer[Place]], dict[str, Answer[str]]]:
    located, named = answers.find(addresses, user_ids)
    columns = located.columns(np.arange(len(addresses)))
    rows = zip(*(columns[name].to_pylist() for name in ("geo_status", "country", "region", "city")), strict=True)
    placed = (Answer(Status(status), country and Place(country, *rest)) for status, country, *rest in rows)
    return dict(zip(addresses, placed, strict=True)), dict(zip(user_ids, named, strict=True))


class SlowGeo:
    """A metered provider that answers when it is told to."""

    metered = True

    def __init__(self, trouble: Exception | None = None) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self.trouble = trouble

    def find(self, addresses: Sequence[str]) -> Mapping[str, Place | None]:
        self.asked += addresses
        self.go.wait(10)
        if self.trouble:
            raise self.trouble
        return dict.fromkeys(addresses, US)

    def close(self) -> None:
        self.go.set()


def test_a_batch_is_one_round_trip_and_what_is_remembered_is_none() -> None:
    shared = InMemoryShared({"1": "Ada"})
    shared.places = {ADDRESS: US}
    answers = worker(shared, InMemoryGeo())

    places, names = find(answers, [ADDRESS], ["1"])

    assert (places[ADDRESS].value, names["1"].value, shared.trips) == (US, "Ada", 1)
    assert find(answers, [ADDRESS], ["1"]) == (places, names)
    assert shared.trips == 1


def test_what_the_provider_says_is_told_to_the_other_workers_and_so_is_that_nobody_knows() -> None:
    shared, geo = InMemoryShared(), InMemoryGeo({ADDRESS: US})

    find(worker(shared, geo), [ADDRESS, OTHER])
    places, _ = find(worker(shared, geo), [ADDRESS, OTHER])

    assert (places[ADDRESS].status, places[OTHER].status) == (Status.FOUND, Status.UNKNOWN)
    assert geo.calls == [[ADDRESS, OTHER]]


def test_a_name_that_is_missing_is_looked_for_again_soon() -> None:
    shared, now = InMemoryShared(), [0.0]
    names: Memory[Answer[str]] = Memory(10, clock=lambda: now[0])
    answers = LayeredAnswers(PlaceMemory(10), names, shared, InMemoryGeo(), Background(), remember_misses=5)
    assert find(answers, [], ["1"])[1]["1"].status is Status.UNKNOWN
    shared.users["1"] = {"name": "Ada"}

    assert find(answers, [], ["1"])[1]["1"].status is Status.UNKNOWN
    now[0] = 6

    assert find(answers, [], ["1"])[1]["1"].value == "Ada"


def test_a_metered_provider_that_answers_in_time_places_the_row() -> None:
    places, _ = find(worker(InMemoryShared(), InMemoryGeo({ADDRESS: US}, metered=True), budget=5), [ADDRESS])

    assert places[ADDRESS].value == US


def test_a_slow_provider_leaves_the_row_pending_and_the_answer_comes_into_redis_and_memory() -> None:
    shared, geo = InMemoryShared(), SlowGeo()
    answers = worker(shared, geo, budget=0.01)

    assert find(answers, [ADDRESS])[0][ADDRESS].status is Status.PENDING
    geo.go.set()
    _eventually(lambda: shared.places == {ADDRESS: US})

    assert find(answers, [ADDRESS])[0][ADDRESS].value == US


def test_an_address_is_asked_of_a_metered_provider_by_one_worker_at_a_time() -> None:
    shared, geo = InMemoryShared(), SlowGeo()
    first, second = worker(shared, geo, budget=0.01), worker(shared, geo, budget=0.01)

    statuses = [find(one, [ADDRESS])[0][ADDRESS].status for one in (first, second, first)]
    geo.go.set()
    _eventually(lambda: shared.places == {ADDRESS: US})

    assert statuses == [Status.PENDING] * 3
    assert geo.asked == [ADDRESS]


def test_when_too_much_is_under_way_further_addresses_are_unavailable_and_free_for_others() -> None:
    shared, geo = InMemoryShared(), SlowGeo()
    answers = worker(shared, geo, budget=0.01)
    find(answers, [ADDRESS])

    assert find(answers, [OTHER])[0][OTHER].status is Status.UNAVAILABLE
    assert shared.asking == {ADDRESS}
    geo.close()


def test_redis_going_down_while_addresses_are_let_go_is_no_reason_to_stop() -> None:
    class Flaky(InMemoryShared):
        def let_go(self, addresses: object) -> None:
            raise Unavailable("down since a moment ago")

    geo = SlowGeo()
    answers = worker(Flaky(), geo, budget=0.01)
    find(answers, [ADDRESS])

    assert find(answers, [OTHER])[0][OTHER].status is Status.UNAVAILABLE
    geo.close()


def test_a_provider_that_is_down_makes_its_addresses_unavailable_and_lets_them_go() -> None:
    shared, geo = InMemoryShared(), InMemoryGeo(metered=True, trouble=Unavailable("down"))

    places, _ = find(worker(shared, geo, budget=5), [ADDRESS])

    assert places[ADDRESS].status is Status.UNAVAILABLE
    assert shared.asking == set()


def test_without_redis_a_metered_provider_is_left_alone() -> None:
    shared, geo = InMemoryShared(), InMemoryGeo({ADDRESS: US}, metered=True)
    shared.down = True

    places, names = find(worker(shared, geo), [ADDRESS], ["1"])

    assert (places[ADDRESS].status, names["1"].status) == (Status.UNAVAILABLE, Status.UNAVAILABLE)
    assert geo.calls == []


def test_a_bug_in_the_background_stops_the_job_at_the_next_look_up() -> None:
    shared, geo = InMemoryShared(), SlowGeo(trouble=KeyError("a bug"))
    answers = worker(shared, geo, budget=0.01)
    find(answers, [ADDRESS])
    geo.go.set()

    with pytest.raises(KeyError):
        _eventually(lambda: not find(answers, [OTHER]))


def _eventually(true: object) -> None:
    deadline = time.monotonic() + 10
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)
