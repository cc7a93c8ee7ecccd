"""The circuit breaker, at times of the test's choosing."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickstream.errors import Refused, Unavailable
from connectors.breaker import CircuitBreaker, State


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, failures: int = 3) -> CircuitBreaker:
    return CircuitBreaker(failures, open_seconds=30, clock=clock, name="the oracle")


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.allow()
        breaker.failure()


def opened(clock: Clock) -> CircuitBreaker:
    open_one = breaker(clock)
    fail(open_one, 3)
    return open_one


def answer() -> str:
    return "an answer"


def be_down() -> str:
    raise Unavailable("down")


def refuse() -> str:
    raise Refused("no")


def be_wrong() -> str:
    raise ZeroDivisionError


def is_allowed(breaker: CircuitBreaker) -> bool:
    try:
        breaker.allow()
    except Unavailable:
        return False
    return True


def test_calls_go_through_while_all_is_well() -> None:
    closed = breaker(Clock())

    assert [closed.call(answer) for _ in range(10)] == ["an answer"] * 10
    assert closed.state is State.CLOSED
    assert closed.rest == 0


def test_so_many_failures_in_a_row_open_it() -> None:
    clock = Clock()
    one = breaker(clock, failures=3)

    fail(one, 2)
    before = one.state
    fail(one)

    assert before is State.CLOSED
    assert one.state is State.OPEN
    assert one.rest == 30


def test_a_success_between_failures_starts_the_count_again() -> None:
    one = breaker(Clock(), failures=3)

    fail(one, 2)
    one.success()
    fail(one, 2)

    assert one.state is State.CLOSED


def test_an_open_one_lets_nothing_through_and_says_when_it_will() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 2.5

    with pytest.raises(Unavailable, match=r"^the oracle has failed and is left alone: the next try is in 28 s"):
        one.call(be_wrong)


def test_after_its_time_one_call_alone_goes_through() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 30

    state = one.state

    assert state is State.HALF_OPEN
    assert [is_allowed(one) for _ in range(3)] == [True, False, False]
    assert one.state is State.HALF_OPEN


def test_whoever_comes_during_a_trial_hears_of_it() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    one.allow()

    with pytest.raises(Unavailable, match=r"the oracle is being tried again after it failed: .* 30 s"):
        one.allow()


def test_a_trial_that_succeeds_lets_all_through_again() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 30

    one.call(answer)

    assert one.state is State.CLOSED
    assert all(is_allowed(one) for _ in range(3))
    fail(one, 2)
    assert one.state is State.CLOSED


def test_a_trial_that_fails_opens_it_for_as_long_again() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 31

    with pytest.raises(Unavailable, match="down"):
        one.call(be_down)

    assert one.state is State.OPEN
    assert one.rest == 30


def test_a_trial_nobody_reports_on_is_given_up() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    one.allow()

    clock.now += 30

    assert [is_allowed(one) for _ in range(2)] == [True, False]


def test_failing_with_a_time_to_wait_opens_it_at_once_for_that_long() -> None:
    clock = Clock()
    one = breaker(clock)

    one.failure(retry_after=7)

    assert one.state is State.OPEN
    clock.now += 6.9
    assert not is_allowed(one)
    clock.now += 0.2
    assert is_allowed(one)


def test_of_two_times_to_wait_the_longer_one_counts() -> None:
    clock = Clock()
    one = breaker(clock)

    one.failure(retry_after=600)
    one.failure(retry_after=7)

    assert one.rest == 600


def test_stragglers_neither_shorten_nor_prolong_the_wait() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 10

    one.failure()
    one.success()

    assert one.state is State.OPEN
    assert one.rest == 20


def test_a_refusal_is_an_answer() -> None:
    one = breaker(Clock(), failures=2)

    for told in (be_down, refuse, be_down):
        with pytest.raises((Unavailable, Refused)):
            one.call(told)

    assert one.state is State.CLOSED


def test_a_bug_counts_as_a_failure_and_is_not_swallowed() -> None:
    one = breaker(Clock(), failures=1)

    with pytest.raises(ZeroDivisionError):
        one.call(be_wrong)

    assert one.state is State.OPEN


def test_of_many_threads_one_makes_the_trial() -> None:
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    together = threading.Barrier(16)
    allowed: list[bool] = []

    def come() -> None:
        together.wait()
        allowed.append(is_allowed(one))

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(allowed) == [False] * 15 + [True]


@given(st.lists(st.sampled_from(["succeed", "fail", "be told to wait", "wait", "vanish"]), max_size=60))
def test_whatever_happens_a_call_goes_through_again_in_the_end(story: list[str]) -> None:
    clock = Clock()
    one = breaker(clock)
    for what in story:
        if what == "wait":
            clock.now += 11
        elif is_allowed(one):
            assert one.state is not State.OPEN
            if what == "succeed":
                one.success()
                assert one.state is State.CLOSED
            elif what != "vanish":
                one.failure(retry_after=40 if what == "be told to wait" else None)
        else:
            assert 0 < one.rest <= 40

    clock.now += 40

    assert one.call(answer) == "an answer"
    assert one.state is State.CLOSED
