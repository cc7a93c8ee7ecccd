"""What a worker remembers, for how long, and what is forgotten first."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clickstream.place import Answer, Place, Status
from enrichment.memory import Memory
from enrichment.places import PlaceMemory

KEYS = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=7)


def recalled(memory: Memory[Any], keys: list[str]) -> dict[str, Any]:
    values, known = memory.recall(keys)
    return {key: value for key, value, is_known in zip(keys, values.tolist(), known.tolist(), strict=True) if is_known}


def test_memory_forgets_what_was_used_least_recently() -> None:
    memory: Memory[int] = Memory(2)
    memory.remember({"a": 1, "b": 2}, seconds=60)
    memory.recall(["a"])

    memory.remember({"c": 3}, seconds=60)

    assert recalled(memory, ["a", "b", "c"]) == {"a": 1, "c": 3}


def test_memory_forgets_when_the_time_is_up() -> None:
    now = [0.0]
    memory: Memory[int] = Memory(2, clock=lambda: now[0])
    memory.remember({"a": 1}, seconds=10)

    now[0] = 10.0

    assert recalled(memory, ["a"]) == {}
    assert len(memory) == 0


def test_more_than_there_is_room_for_leaves_the_last_of_it() -> None:
    memory: Memory[int] = Memory(2)

    memory.remember({"a": 1, "b": 2, "c": 3}, seconds=60)

    assert recalled(memory, ["a", "b", "c"]) == {"b": 2, "c": 3}


def test_a_memory_without_room_remembers_nothing() -> None:
    memory: Memory[int] = Memory(0)

    memory.remember({"a": 1}, seconds=60)

    assert recalled(memory, ["a"]) == {}


class Remembering(RuleBasedStateMachine):
    """Beside the memory, all that it was ever told: what it recalls is that, and what it forgot was used before."""

    capacity = 5

    def __init__(self) -> None:
        super().__init__()
        self.now, self.call = 0.0, 0
        self.memory: Memory[int] = Memory(self.capacity, clock=lambda: self.now, kind=np.int64)
        self.told: dict[str, tuple[int, float]] = {}
        self.used: dict[str, int] = {}

    @rule(keys=KEYS, seconds=st.integers(1, 5))
    def remember(self, keys: list[str], seconds: int) -> None:
        self.call += 1
        self.memory.remember(dict.fromkeys(keys, self.call), seconds)
        kept = keys[-self.capacity :]
        self.told.update(dict.fromkeys(kept, (self.call, self.now + seconds)))
        self.used.update(dict.fromkeys(kept, self.call))
        assert recalled(self.memory, kept) == dict.fromkeys(kept, self.call)

    @rule(keys=KEYS)
    def recall(self, keys: list[str]) -> None:
        found = recalled(self.memory, keys)
        self.call += 1
        assert found == {key: self.told[key][0] for key in found}
        assert all(self.told[key][1] > self.now for key in found)
        self.used.update(dict.fromkeys(found, self.call))

    @precondition(lambda self: self.told)
    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def what_was_used_last_is_there(self) -> None:
        alive = [key for key, (_, expires) in self.told.items() if expires > self.now]
        newest = sorted(alive, key=lambda key: self.used[key])
        assert len(self.memory) <= min(self.capacity, len(alive))
        slots = self.memory._slots
        forgotten = [self.used[key] for key in newest if key not in slots]
        assert len(slots) <= self.capacity
        assert max(forgotten, default=0) <= min((self.used[key] for key in slots if key in alive), default=self.call)


TestRemembering = Remembering.TestCase


PLACES = st.builds(
    Place, st.sampled_from(["US", "JP"]), st.sampled_from([None, "Ohio"]), st.sampled_from([None, "Rome"])
)
ANSWERS = st.one_of(PLACES.map(Answer.of), st.sampled_from(Status).filter(lambda s: s != Status.FOUND).map(Answer))


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), ANSWERS)), st.integers(1, 6))
def test_a_remembered_place_has_the_columns_it_came_with(batches: list[dict[str, Answer[Place]]], room: int) -> None:
    memory = PlaceMemory(room)
    for batch in batches:
        addresses = list(batch)
        located = memory.recall(addresses)
        located.fill(map(batch.__getitem__, located.missing(addresses)))
        memory.remember(batch, 60)

        again = memory.recall(addresses[-room:])

        assert again.known.all() or not again.known.any()  # it has begun anew
        if again.known.all():
            kept = [batch[address] for address in addresses[-room:]]
            columns = again.columns(np.arange(len(kept)))
            assert columns["geo_status"].to_pylist() == [answer.status for answer in kept]
            assert columns["city"].to_pylist() == [answer.value and answer.value.city for answer in kept]
