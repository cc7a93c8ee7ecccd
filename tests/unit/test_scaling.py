"""How many shards a stream is given, and what the simulator makes of it."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.scaling import app
from clickstream.errors import Refused
from deploy.scaling.decide import SHARD_BYTES, SHARD_RECORDS, Action, Minute, Policy, Seen, decide, thresholds
from deploy.scaling.simulate import Outcome, simulate
from deploy.scaling.traces import MADE_UP, MINUTE, Load, made_up, read_trace, write_trace

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
POLICY = Policy(least=1, most=100)


def traffic(shards: float, minutes: int = 60, throttled: float = 0.0) -> list[Minute]:
    """So many minutes that fill so many shards."""
    return [Minute(shards * SHARD_BYTES / 2, shards * SHARD_RECORDS, throttled)] * minutes


def seen(shards: int, minutes: Sequence[Minute], **changed: Any) -> Seen:
    return Seen(**{"now": NOW, "shards": shards, "minutes": minutes} | changed)


def acted(*minutes_ago: float, shards: int = 8) -> list[Action]:
    return [Action(NOW - timedelta(minutes=ago), shards) for ago in minutes_ago]


# Growing


@pytest.mark.parametrize(("load", "shards"), [(3.3, 5), (4.5, 7), (6.0, 8), (40.0, 8)])
def test_a_busy_stream_grows_by_quarters_to_what_would_do_and_at_most_to_double(load: float, shards: int) -> None:
    decision = decide(POLICY, seen(4, traffic(load)))

    if load == 3.3:
        assert decision.shards == 6  # 3.3 / 0.65 is more than five
    else:
        assert decision.shards == shards


def test_bytes_count_as_records_do() -> None:
    large = [Minute(bytes=0.9 * SHARD_BYTES, records=10)] * 3

    assert decide(POLICY, seen(1, large)).shards == 2


def test_one_busy_minute_of_the_last_three_is_enough() -> None:
    assert decide(POLICY, seen(4, [*traffic(1, 57), *traffic(3.9, 1), *traffic(1, 2)])).shards
    assert decide(POLICY, seen(4, [*traffic(1, 56), *traffic(3.9, 1), *traffic(1, 3)])).shards is None


def test_records_turned_away_count_as_wanted() -> None:
    minutes = traffic(3, throttled=2 * SHARD_RECORDS)

    assert decide(POLICY, seen(4, minutes)).shards == 8


def test_a_hot_key_is_said_and_no_reason_to_grow() -> None:
    decision = decide(POLICY, seen(10, traffic(4, throttled=50)))

    assert decision.shards is None
    assert "hot" in decision.why
    assert not decision.look_again


def test_the_fewer_changes_are_left_the_larger_they_are() -> None:
    minutes = traffic(6.6)

    grown = [decide(Policy(most=100), seen(8, minutes, actions=acted(*range(100, 100 + n)))).shards for n in (0, 5, 6)]

    assert grown == [12, 12, 16]


def test_it_grows_no_further_than_the_policy_and_the_account_allow() -> None:
    busy = traffic(9)

    assert decide(Policy(most=9), seen(8, busy)).shards == 9
    assert decide(Policy(most=8), seen(8, busy)).shards is None
    assert decide(POLICY, seen(8, busy, free=3)).shards == 11
    assert "account" in decide(POLICY, seen(8, busy, free=0)).why
    assert decide(POLICY, seen(8, busy, free=-2)).shards is None


def test_fewer_shards_than_the_least_are_made_more_without_traffic() -> None:
    assert decide(Policy(least=6), seen(2, [])).shards == 4
    assert decide(Policy(least=6), seen(4, [])).shards == 6


# Shrinking


def test_a_stream_quiet_for_an_hour_is_halved() -> None:
    assert decide(POLICY, seen(8, traffic(2))).shards == 4
    assert decide(POLICY, seen(5, traffic(0))).shards == 3
    assert decide(POLICY, seen(1, traffic(0))).shards is None


def test_a_stream_younger_than_an_hour_keeps_its_shards() -> None:
    assert decide(POLICY, seen(8, traffic(0, 59))).shards is None
    assert decide(POLICY, seen(8, [])).shards is None


def test_one_busier_minute_within_the_hour_keeps_the_shards() -> None:
    minutes = [*traffic(2, 10), *traffic(4, 1), *traffic(2, 49)]

    assert decide(POLICY, seen(8, minutes)).shards is None


def test_readers_who_lag_or_of_whom_nobody_knows_keep_the_shards() -> None:
    lagging = decide(POLICY, seen(8, traffic(0), behind=timedelta(minutes=2)))
    unknown = decide(POLICY, seen(8, traffic(0), behind=None))

    assert (lagging.shards, unknown.shards) == (None, None)
    assert lagging.look_again
    assert "behind" in lagging.why
    assert "nobody knows" in unknown.why


def test_growing_does_not_wait_for_readers() -> None:
    assert decide(POLICY, seen(4, traffic(4), behind=timedelta(hours=3))).shards == 7


def test_a_fresh_change_is_let_rest_and_longer_before_shrinking() -> None:
    busy, quiet = traffic(8), traffic(1)

    assert decide(POLICY, seen(8, busy, actions=acted(2))).look_again
    assert decide(POLICY, seen(8, busy, actions=acted(2))).shards is None
    assert decide(POLICY, seen(8, busy, actions=acted(4))).shards
    assert decide(POLICY, seen(8, quiet, actions=acted(29))).shards is None
    assert decide(POLICY, seen(8, quiet, actions=acted(31))).shards == 4


def test_changes_are_kept_for_growing_back_to_the_largest_of_the_day() -> None:
    actions = [*acted(*range(200, 204), shards=64), *acted(100, 99, shards=8)]

    decision = decide(POLICY, seen(8, traffic(1), actions=actions))

    assert decision.shards is None  # 6 taken, 1 for this, 4 to get from 4 back to 64, 1 to spare
    assert "kept for growing" in decision.why
    assert decide(POLICY, seen(8, traffic(1), actions=acted(*range(200, 206)))).shards == 4


def test_more_shards_than_the_policy_allows_shrink_to_what_it_allows() -> None:
    assert decide(Policy(most=6), seen(8, traffic(7))).shards == 6
    assert decide(Policy(most=6), seen(20, traffic(7))).shards == 10


# Left alone


def test_an_on_demand_stream_and_one_that_is_changing_are_left_alone() -> None:
    assert decide(POLICY, seen(4, traffic(4), on_demand=True)).shards is None
    changing = decide(POLICY, seen(4, traffic(4), active=False))
    assert (changing.shards, changing.look_again) == (None, True)


def test_the_eleventh_change_of_a_day_waits_for_the_first_to_be_a_day_old() -> None:
    ten = acted(24 * 60, *range(300, 1200, 100))

    assert decide(POLICY, seen(8, traffic(8), actions=ten)).shards is None
    later = Seen(NOW + timedelta(minutes=2), 8, traffic(8), actions=ten)
    assert decide(POLICY, later).shards


@pytest.mark.parametrize(
    "wrong", [{"least": 0}, {"least": 5, "most": 4}, {"most": 10_001}, {"aim": 0.9}, {"high": 1.1}]
)
def test_a_policy_that_cannot_be_is_refused_with_an_example(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="Next: give"):
        Policy(**wrong)


def test_alarms_ring_where_decisions_are_made() -> None:
    levels = thresholds(POLICY, 8)

    assert levels["records-high"] == pytest.approx(0.8 * 8 * 60_000)
    assert levels["bytes-low"] == pytest.approx(0.65 * 4 * 60_000_000)


# What always holds


def aws_would_refuse(now: datetime, before: int, after: int, earlier: Sequence[datetime], account: int) -> str | None:
    """The documented limits of UpdateShardCount, written down anew."""
    if not math.ceil(before / 2) <= after <= 2 * before or after < 1:
        return "at most double, at least half"
    if after > 10_000 or after > account:
        return "shard limit"
    if sum(now - moment < timedelta(hours=24) for moment in earlier) >= 10:
        return "ten times in 24 hours"
    return None


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    least = draw(st.integers(1, 50))
    aim = draw(st.floats(0.1, 0.8))
    return Policy(
        least=least,
        most=draw(st.integers(least, 10_000)),
        aim=aim,
        high=draw(st.floats(aim + 0.01, 1.0)),
        quiet=draw(st.integers(5, 60)),
        rest_up=timedelta(minutes=draw(st.integers(0, 10))),
        rest_down=timedelta(minutes=draw(st.integers(0, 60))),
        spare=draw(st.integers(0, 3)),
    )


# a trace is a few stretches of constant traffic, in shards, each so many minutes long
stretches = st.lists(st.tuples(st.floats(0, 400), st.integers(1, 150)), min_size=1, max_size=12)


def as_loads(drawn: Sequence[tuple[float, int]]) -> list[Load]:
    levels = [level for level, minutes in drawn for _ in range(minutes)]
    return [
        Load(NOW + MINUTE * index, level * SHARD_BYTES / 3, level * SHARD_RECORDS) for index, level in enumerate(levels)
    ]


@settings(deadline=None, max_examples=40)
@given(policies(), stretches, st.integers(1, 300), st.none() | st.floats(1, 400_000))
def test_whatever_the_traffic_aws_limits_are_kept(
    policy: Policy, drawn: list[tuple[float, int]], shards: int, readers: float | None
) -> None:
    outcome = simulate(policy, as_loads(drawn), shards, readers)

    taken: list[datetime] = []
    for at, before, after, _ in outcome.actions:
        assert aws_would_refuse(at, before, after, taken, account=10_000) is None
        assert after != before
        taken.append(at)


@settings(deadline=None, max_examples=40)
@given(policies(), stretches, st.integers(1, 300))
def test_whatever_the_traffic_no_change_is_undone_within_its_rest(
    policy: Policy, drawn: list[tuple[float, int]], shards: int
) -> None:
    actions = simulate(policy, as_loads(drawn), shards).actions

    for (earlier, _, _, _), (later, before, after, _) in pairwise(actions):
        assert later - earlier >= (policy.rest_up if after > before else policy.rest_down)


@settings(deadline=None, max_examples=15)
@given(st.floats(0.01, 90), st.integers(1, 100))
def test_under_steady_traffic_it_settles_and_turns_nothing_away(level: float, shards: int) -> None:
    outcome = simulate(POLICY, as_loads([(level, 36 * 60)]), shards)

    ways = [after > before for _, before, after, _ in outcome.actions]
    assert ways == sorted(ways) or ways == sorted(ways, reverse=True)  # one way, never back
    settled = simulate(POLICY, as_loads([(level, 120)]), outcome.actions[-1][2] if ways else shards)
    assert settled.throttled == 0


@settings(deadline=None)
@given(
    policies(),
    st.integers(1, 20_000),
    st.lists(st.builds(Minute, st.floats(0, 1e12), st.floats(0, 1e9), st.floats(0, 1e9)), max_size=60),
    st.none() | st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(-5, 1500), st.integers(1, 20_000)), max_size=12),
    st.integers(-100, 20_000),
)
def test_whatever_is_seen_a_decision_is_one_that_aws_takes(
    policy: Policy, shards: int, minutes: list[Minute], behind: int | None, past: list[tuple[int, int]], free: int
) -> None:
    actions = [Action(NOW - timedelta(minutes=ago), count) for ago, count in past]
    lag = None if behind is None else timedelta(seconds=behind)

    decision = decide(policy, Seen(NOW, shards, minutes, lag, actions, free))

    if decision.shards is not None:
        moments = [action.at for action in actions]
        if decision.shards > shards:
            assert aws_would_refuse(NOW, shards, decision.shards, moments, account=shards + free) is None
            assert decision.shards <= policy.most
        else:
            assert aws_would_refuse(NOW, shards, decision.shards, moments, account=20_000) is None
            assert lag is not None
            assert lag <= policy.lag


# The simulator


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["simulate", *words], catch_exceptions=True)


def test_made_up_traffic_is_the_same_for_the_same_seed() -> None:
    assert made_up("daily", 100, seed=3) == made_up("daily", 100, seed=3)
    assert made_up("daily", 100, seed=3) != made_up("daily", 100, seed=4)


@pytest.mark.parametrize("name", MADE_UP)
def test_shards_that_follow_the_traffic_turn_little_away(name: str) -> None:
    outcome = simulate(Policy(most=64), made_up(name, 20_000), 30 if name in ("flat", "sawtooth") else 8)

    assert outcome.throttled_share < (0.08 if name == "spike" else 0.001)
    if name in ("black-friday", "daily", "growth", "spike"):
        assert outcome.shard_hours < outcome.fixed_shard_hours


def test_a_trace_survives_being_written_and_read(tmp_path: Path) -> None:
    loads = [Load(NOW, 1000, 3), Load(NOW + 3 * MINUTE, 2000, 6)]

    assert write_trace(loads, tmp_path / "trace.csv") == 2

    assert [load.records for load in read_trace(tmp_path / "trace.csv")] == [3, 0, 0, 6]
    assert read_trace(tmp_path / "trace.csv")[-1] == loads[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: does not name the columns minute,bytes,records"),
        ("minute,bytes,records\n", "has no minutes in it"),
        ("minute,bytes,records\nnoon,1,1\n", "line 2: has no minute such as"),
        ("minute,bytes,records\n2026-11-27T00:00:30,1,1\n", "line 2: has no minute such as"),
        ("minute,bytes,records\n2026-11-27T00:00,1\n", "line 2: has bytes and records that are no numbers"),
        ("minute,bytes,records\n2026-11-27T00:00,1,-1\n", "line 2: has bytes and records that are no numbers"),
        ("minute,bytes,records\n2026-11-27T00:00,1e300,1\n", "line 2: has bytes and records that are no numbers"),
        ("minute,bytes,records\n2026-11-27T00:00,nan,1\n", "line 2: has bytes and records that are no numbers"),
        ("minute,bytes,records\n2026-11-27T00:00,1,1\n2026-11-27T00:00,1,1\n", "line 3: is not later than"),
        (
            "minute,bytes,records\n2026-11-27T00:00,1,1\n2027-11-27T00:00,1,1\n",
            "line 3: comes more than 144,000 minutes",
        ),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "trace.csv").write_text(text)

    with pytest.raises(Refused, match=rf"{words}.*Next: "):
        read_trace(tmp_path / "trace.csv")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot write .*trace\.csv .* Next: "):
        write_trace([], tmp_path / "missing" / "trace.csv")


def test_a_trace_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(b"\xff\xfe\x00")

    for name in ("trace.csv", "missing.csv"):
        with pytest.raises(Refused, match="Next: "):
            read_trace(tmp_path / name)


def test_a_recorded_trace_is_simulated_and_told_as_json(tmp_path: Path) -> None:
    write_trace(as_loads([(0.5, 30), (3.0, 30)]), tmp_path / "trace.csv")

    done = run(str(tmp_path / "trace.csv"), "--shards", "2", "--json")

    told = json.loads(done.stdout)
    assert told["minutes"] == 60
    assert told["actions"][0] | {"why": ""} == {"at": "2026-11-27T12:31", "from": 2, "to": 4, "why": ""}
    assert told["throttled_records"] == pytest.approx(4 * SHARD_RECORDS, rel=0.3)
    assert told["throttled_share"] == pytest.approx(told["throttled_records"] / told["records"], abs=1e-6)


def test_the_table_names_changes_throttled_share_and_shard_hours() -> None:
    done = run("--made-up", "black-friday", "--peak", "5000")

    assert done.exit_code == 0
    for words in ("busy: ", "quiet for 60 minutes", "throttled", "shard-hours", "if fixed", "held back"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "words", [(), ("trace.csv", "--made-up", "daily"), ("--made-up", "weekly"), ("--made-up", "daily", "--most", "0")]
)
def test_what_makes_no_sense_is_refused_in_words(words: tuple[str, ...]) -> None:
    done = run(*words)

    assert done.exit_code != 0
    assert isinstance(done.exception, (Refused, SystemExit))
    assert "Traceback" not in done.output


def test_no_traffic_at_all_comes_to_the_least_shards() -> None:
    outcome = simulate(Policy(least=2), as_loads([(0, 300)]), 4)

    assert [action[1:3] for action in outcome.actions] == [(4, 2)]
    assert outcome.throttled_share == Outcome().throttled_share == 0
