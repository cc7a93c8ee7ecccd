"""What a job begins from: the state that completed last, nothing else, and a JVM with the options it should have."""

import os
from pathlib import Path

import pytest

from clickstream.errors import Refused, Unavailable
from flink_app.local import _java_options, _may_pass
from flink_app.state import check, is_savepoint, latest


def completed(state: Path, at: int) -> Path:
    state.mkdir(parents=True)
    (state / "_metadata").write_bytes(b"state")
    os.utime(state / "_metadata", (at, at))
    return state


def test_a_folder_without_a_completed_checkpoint_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "job" / "chk-1").mkdir(parents=True)

    assert latest(tmp_path) is None
    assert latest(tmp_path / "nowhere") is None


def test_the_one_that_completed_last_counts_whichever_job_made_it(tmp_path: Path) -> None:
    completed(tmp_path / "checkpoints" / "one" / "chk-99", 100)
    newest = completed(tmp_path / "checkpoints" / "two" / "chk-7", 200)
    (tmp_path / "checkpoints" / "two" / "chk-8").mkdir()  # under way when the job was killed

    assert latest(tmp_path) == newest


def test_a_savepoint_counts_when_it_came_last(tmp_path: Path) -> None:
    checkpoint = completed(tmp_path / "checkpoints" / "one" / "chk-9", 100)
    savepoint = completed(tmp_path / "savepoints" / "savepoint-1", 101)

    assert latest(tmp_path) == savepoint
    assert is_savepoint(savepoint)
    assert not is_savepoint(checkpoint)


def test_of_two_in_the_same_instant_the_higher_number_counts(tmp_path: Path) -> None:
    completed(tmp_path / "checkpoints" / "one" / "chk-9", 100)
    tenth = completed(tmp_path / "checkpoints" / "one" / "chk-10", 100)

    assert latest(tmp_path) == tenth


def test_what_is_no_state_is_refused_with_what_to_give_instead(tmp_path: Path) -> None:
    check(tmp_path, completed(tmp_path / "chk-12", 1))

    with pytest.raises(Refused, match=r"is not there, or cannot be reached\. Next: .*_metadata"):
        check(tmp_path, tmp_path / "nowhere")
    with pytest.raises(Refused, match="holds no completed checkpoint"):
        check(tmp_path, tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()

    with pytest.raises(Refused, match="checkpoints cannot be written"):
        check(tmp_path, None)


BUG = "Error received from SDK harness for instruction 3: Traceback (most recent call last):\n  …\nZeroDivisionError: …"


@pytest.mark.parametrize(
    ("error", "attempt", "passes"),
    [
        (RuntimeError("Caused by: java.io.IOException: No space left on device"), 0, True),
        (RuntimeError("Caused by: java.io.IOException: No space left on device"), 3, True),
        (RuntimeError(f"{BUG}\nOSError: [Errno 28] No space left on device"), 3, True),
        (RuntimeError(BUG), 0, False),
        (RuntimeError(BUG), 3, False),
        (Refused("the password is wrong"), 3, False),
        (Unavailable("a server"), 0, False),
        (RuntimeError("JobInitializationException: no such savepoint"), 0, False),
        (RuntimeError("JobInitializationException: No space left on device"), 1, True),
        (RuntimeError("py4j.protocol.Py4JNetworkError: Answer from Java side is empty"), 1, False),
    ],
)
def test_trouble_outside_passes_and_a_bug_does_not(error: Exception, attempt: int, passes: bool) -> None:
    assert _may_pass(error, attempt) == passes


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("", "-XX:+UseParallelGC"),
        ("-XX:TieredStopAtLevel=1", "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC"),
        ("-Xmx2g -XX:+UseG1GC", "-Xmx2g -XX:+UseG1GC"),  # two collectors, and no JVM starts
    ],
)
def test_the_collector_is_ours_unless_the_user_names_one(given: str, options: str) -> None:
    assert _java_options(given) == options
