"""Decides how many shards a stream should have, from what was seen of it; asks nobody and changes nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from clickstream.errors import Refused

# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_BYTES: Final = 60 * 1_000_000
"""What one shard takes in a minute."""

SHARD_RECORDS: Final = 60 * 1_000

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_UpdateShardCount.html
ACTIONS_A_DAY: Final = 10
MOST_SHARDS: Final = 10_000
DAY: Final = timedelta(hours=24, minutes=1)
"""AWS counts over 24 hours by its own clock; the minute is for ours."""


class Minute(NamedTuple):
    """What came in during a minute, and how many records were turned away."""

    bytes: float = 0.0
    records: float = 0.0
    throttled: float = 0.0

    @property
    def shards(self) -> float:
        """The shards that all of it would have filled; those turned away are taken to be as large as the others."""
        wanted = self.records + self.throttled
        return max(wanted * self.record_bytes / SHARD_BYTES, wanted / SHARD_RECORDS)

    @property
    def record_bytes(self) -> float:
        """How large those records are that came in, on average."""
        return self.bytes / self.records if self.records >= 1 else 0.0


class Action(NamedTuple):
    """A change of the shard count."""

    at: datetime
    shards: int  # from then on


@dataclass(frozen=True, slots=True)
class Policy:
    """When to act. `high` and `aim` are shares of what the shards can take; what cannot be is `Refused`.

    Up is quick: as soon as one of the last minutes fills more than `high`, to where it fills `aim`. Down is slow, and
    by halves: when half the shards would have been filled to no more than `aim` in each minute of a whole hour. So dips
    are sat out, and what remains is far enough below `high` not to go up again at once.
    """

    least: int = 1
    most: int = 32
    high: float = 0.80
    aim: float = 0.65
    recent: int = 3  # minutes whose busiest one is to fit
    quiet: int = 60  # minutes that a smaller stream would have sufficed for
    rest_up: timedelta = timedelta(minutes=3)  # after any action
    rest_down: timedelta = timedelta(minutes=30)
    lag: timedelta = timedelta(minutes=1)  # readers who are further behind than this are not to lose shards
    spare: int = 1  # actions a day that a scale-down leaves over after those that would undo it

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= MOST_SHARDS:
            raise Refused(
                f"a stream cannot have {self.least} to {self.most} shards. "
                f"Next: give two numbers from 1 to {MOST_SHARDS:,}, the smaller one first"
            )
        if not 0 < self.aim < self.high <= 1:
            raise Refused(
                f"aim {self.aim:g} and high {self.high:g} are not two shares, the smaller one first. "
                f"Next: give such as 0.65 and 0.8"
            )


@dataclass(frozen=True, slots=True)
class Seen:
    """A stream at a moment."""

    now: datetime
    shards: int
    minutes: Sequence[Minute]  # the latest last, `Policy.quiet` of them or all there were
    behind: timedelta | None = timedelta(0)  # how far readers are; None if nobody knows
    actions: Sequence[Action] = ()
    free: int = MOST_SHARDS  # shards that the account may still open
    active: bool = True
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The shards to change to, None to leave them; why; and whether to `look_again` though traffic stays as it is."""

    shards: int | None
    why: str
    look_again: bool = False


def decide(policy: Policy, seen: Seen) -> Decision:
    """Say what is to be done now. No decision is one that AWS would refuse."""
    if seen.on_demand:
        return Decision(None, "on-demand: AWS sees to the shards itself")
    if not seen.active:
        return Decision(None, "the last change is still under way", look_again=True)
    peak = _busiest(seen.minutes[-policy.recent :])
    busy = peak > policy.high * seen.shards
    if seen.shards < policy.least or (busy and seen.shards < policy.most):
        return _up(policy, seen, max(policy.least, math.ceil(peak / policy.aim)))
    half = max(policy.least, math.ceil(seen.shards / 2))
    quiet = len(seen.minutes) >= policy.quiet and _busiest(seen.minutes[-policy.quiet :]) <= policy.aim * half
    if half < seen.shards and (quiet or seen.shards > policy.most):
        return _down(policy, seen, half)
    return Decision(None, _why_not(seen, policy, busy=busy))


def thresholds(policy: Policy, shards: int) -> Mapping[str, float]:
    """Return what the stream's alarms are to ring at, by the last word of their names, in units a minute."""
    return {
        "bytes-high": policy.high * shards * SHARD_BYTES,
        "records-high": policy.high * shards * SHARD_RECORDS,
        "bytes-low": policy.aim / 2 * shards * SHARD_BYTES,
        "records-low": policy.aim / 2 * shards * SHARD_RECORDS,
    }


def latest(actions: Sequence[Action], now: datetime) -> list[Action]:
    """Return the actions that still count, oldest first."""
    return sorted(action for action in actions if now - action.at < DAY)


def _busiest(minutes: Sequence[Minute]) -> float:
    return max((minute.shards for minute in minutes), default=0.0)


def _why_not(seen: Seen, policy: Policy, *, busy: bool) -> str:
    if busy:
        return f"busy, and {seen.shards:,} shards are as many as the policy allows"
    if any(minute.throttled for minute in seen.minutes[-policy.recent :]):
        return "records were turned away while there was room on the whole: some key is too hot"
    return "about right"


def _up(policy: Policy, seen: Seen, wanted: int) -> Decision:
    """Grow; the fewer actions are left, the more by each, since ten steps of a quarter are less than four doublings."""
    actions = latest(seen.actions, seen.now)
    left = ACTIONS_A_DAY - len(actions)
    if left <= 0:
        return Decision(None, f"busy, and AWS allows no more than {ACTIONS_A_DAY} changes a day", look_again=True)
    if _resting(actions, seen.now, policy.rest_up):
        return Decision(None, "busy, and the last change is too fresh", look_again=True)
    smallest = 1.25 if left > 6 else 1.5 if left > 4 else 2.0
    steps = [math.ceil(seen.shards * factor) for factor in (1.25, 1.5, 1.75, 2.0) if factor >= smallest]
    target = next((step for step in steps if step >= wanted), 2 * seen.shards)
    target = min(target, 2 * seen.shards, policy.most, seen.shards + max(0, seen.free))
    if target <= seen.shards:
        return Decision(None, "busy, and the account's limit of shards is reached", look_again=True)
    return Decision(target, f"busy: {wanted:,} shards would do", look_again=True)


def _down(policy: Policy, seen: Seen, half: int) -> Decision:
    """Shrink if nobody is behind and enough actions are left to grow again."""
    actions = latest(seen.actions, seen.now)
    if seen.behind is None:
        return Decision(None, "quiet, but nobody knows how far behind readers are", look_again=True)
    if seen.behind > policy.lag:
        return Decision(None, "quiet, but readers are behind", look_again=True)
    if _resting(actions, seen.now, policy.rest_down):
        return Decision(None, "quiet, and the last change is too fresh", look_again=True)
    target = max(half, policy.most) if half < policy.most < seen.shards else half
    if seen.shards > MOST_SHARDS and target >= MOST_SHARDS:
        return Decision(None, f"more than {MOST_SHARDS:,} shards shrink only to fewer than that")
    largest = max([seen.shards, *(action.shards for action in actions)])
    back = math.ceil(math.log2(largest / target))
    if len(actions) + 1 + back + policy.spare > ACTIONS_A_DAY:
        return Decision(None, "quiet, but what is left of today's changes is kept for growing", look_again=True)
    return Decision(target, f"quiet for {policy.quiet} minutes: {target:,} shards do", look_again=True)


def _resting(actions: Sequence[Action], now: datetime, rest: timedelta) -> bool:
    return bool(actions) and now - actions[-1].at < rest
