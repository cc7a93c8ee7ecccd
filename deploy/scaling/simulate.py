"""Runs traffic past the decisions that the scaling Lambda takes, to see what would be turned away and what it costs.

What it takes for granted: keys spread evenly; a record turned away is gone (producers who try again make it worse);
decisions see a minute only once it is over; a change takes two minutes and one more for every ten shards, and until
then the old shards serve.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deploy.scaling.decide import SHARD_BYTES, SHARD_RECORDS, Action, Minute, Policy, Seen, decide, latest
from deploy.scaling.traces import MINUTE, Load


@dataclass(slots=True)
class Outcome:
    """What became of a trace."""

    minutes: int = 0
    records: float = 0.0
    throttled: float = 0.0
    throttled_minutes: int = 0
    shard_minutes: int = 0
    needed: int = 1  # shards that the busiest minute fills to `Policy.high`, so many a careful person would have fixed
    largest: int = 0
    actions: list[tuple[datetime, int, int, str]] = field(default_factory=list)  # when, from, to, why
    held_back: dict[str, int] = field(default_factory=dict)  # minutes in which one would have liked to act, by reason

    @property
    def throttled_share(self) -> float:
        return self.throttled / self.records if self.records else 0.0

    @property
    def shard_hours(self) -> float:
        return self.shard_minutes / 60

    @property
    def fixed_shard_hours(self) -> float:
        """What `needed` shards all the time would have come to."""
        return self.needed * self.minutes / 60


def simulate(policy: Policy, loads: Iterable[Load], shards: int, readers: float | None = None) -> Outcome:
    """Run a trace, beginning with so many shards; `readers` is how many records a second they keep up with."""
    outcome = Outcome()
    minutes: list[Minute] = []
    actions: list[Action] = []
    unread, changing = 0.0, None
    for load in loads:
        if changing is not None and load.minute >= changing[0]:
            shards, changing = changing[1], None
        minute = _served(load, shards)
        minutes = [*minutes[-policy.quiet + 1 :], minute]
        unread = max(0.0, unread + minute.records - (math.inf if readers is None else readers * 60))
        behind = timedelta(seconds=unread / readers if readers else 0.0)
        _count(outcome, load, minute, shards, policy.high)
        if changing is None:
            now = load.minute + MINUTE
            actions = latest(actions, now)
            decision = decide(policy, Seen(now, shards, minutes, behind, actions))
            if decision.shards is not None:
                outcome.actions.append((now, shards, decision.shards, decision.why))
                actions.append(Action(now, decision.shards))
                changing = (now + MINUTE * (2 + max(shards, decision.shards) // 10), decision.shards)
            elif decision.look_again:
                outcome.held_back[decision.why] = outcome.held_back.get(decision.why, 0) + 1
    return outcome


def _served(load: Load, shards: int) -> Minute:
    """Take as much as the shards can."""
    fill = max(load.records / (shards * SHARD_RECORDS), load.bytes / (shards * SHARD_BYTES), 1.0)
    return Minute(load.bytes / fill, load.records / fill, load.records - load.records / fill)


def _count(outcome: Outcome, load: Load, minute: Minute, shards: int, high: float) -> None:
    outcome.minutes += 1
    outcome.records += load.records
    outcome.throttled += minute.throttled
    outcome.throttled_minutes += minute.throttled > 0
    outcome.shard_minutes += shards
    outcome.largest = max(outcome.largest, shards)
    filled = max(load.records / SHARD_RECORDS, load.bytes / SHARD_BYTES)
    outcome.needed = max(outcome.needed, math.ceil(filled / high))
