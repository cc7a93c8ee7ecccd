"""A run that is followed goes on where it was left, whichever way it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.servers import PROJECT
from tests.jobs import PATIENCE, processes_with

RUN = [sys.executable, "-m", "cli.main", "run", "--follow", "--rate", "100"]


def follow(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUN, "--folder", str(folder), "--report", str(folder / "report.json"), *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(what: Callable[[], object], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def files(folder: Path) -> set[Path]:
    return set((folder / "lake" / "raw").rglob("part-*"))


def audit(folder: Path, *manifests: Path) -> subprocess.CompletedProcess[str]:
    named = [word for manifest in manifests for word in ("--manifest", str(manifest))]
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "audit", "--folder", str(folder), *named],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_that_was_killed_is_taken_up_again_with_nothing_lost_and_nothing_twice(tmp_path: Path) -> None:
    first = follow(tmp_path)
    wait_for(lambda: files(tmp_path), first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    deadline = time.monotonic() + 30
    while processes_with(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_with(str(tmp_path))
    accepted = tmp_path / "accepted-before-the-kill"
    # The last line may be cut off.
    lines = (tmp_path / "follow" / "accepted.ndjson").read_text().splitlines(keepends=True)
    accepted.write_text("".join(line for line in lines if line.endswith("\n")))
    committed = files(tmp_path)

    second = follow(tmp_path)
    wait_for(lambda: files(tmp_path) - committed, second)
    second.send_signal(signal.SIGINT)
    screen, _ = second.communicate(timeout=PATIENCE)

    assert second.returncode == 0, screen
    assert "from the last run's chk-" in screen
    assert "the books balance" in screen
    together = audit(tmp_path, accepted, tmp_path / "follow" / "accepted.ndjson")
    assert together.returncode == 0, together.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--follow", "--begin-from", "/no/such/savepoint"], "is not there, or cannot be reached"),
        (["--follow", "--begin-from", str(PROJECT)], "holds no completed checkpoint or savepoint"),
        (["--fresh"], "go with --follow"),
    ],
)
def test_a_state_that_cannot_be_begun_from_is_said_before_anything_is_read(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "run", "--folder", str(tmp_path), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "follow" / "kinesalite").exists()


def test_a_folder_that_takes_no_checkpoints_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "follow").mkdir()
    (tmp_path / "follow" / "flink").touch()  # a file where a folder has to be

    done = subprocess.run([*RUN, "--folder", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "checkpoints cannot be written" in " ".join(done.stderr.split())
