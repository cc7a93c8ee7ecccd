"""The job as a process of its own, started and stopped with the command that needs it."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cli.servers import PROJECT, dying_with
from clickstream.errors import ClickstreamError, Refused, Unavailable
from clickstream.settings import FILE_VARIABLE, Settings
from flink_app.state import FLINK_IS_GONE, latest

STOP_SECONDS: Final = 120.0
"""How long a savepoint and the last commits may take."""

QUICK_TO_COMPILE: Final = "-XX:TieredStopAtLevel=1"
"""Of a job that is soon over the JVM spends more on making its code fast than that code would save."""

RESTARTS_IN_VAIN: Final = 5
"""How often a job that is killed is started again, if it does not get as far as a checkpoint."""


class JobFailed(ClickstreamError):
    """The job has died of itself: a bug, or something it cannot do without. Carries its Python traceback, if any."""


def check_folder(folder: Path) -> None:
    """Raise `Refused` for a folder that PyFlink's start script would take for several, and write a log to each."""
    if len(str(folder.absolute()).split()) > 1:
        raise Refused(
            f"--folder {folder}: PyFlink takes no path with a space in it for its workers. Next: choose another folder"
            f" (the lake may be in one)"
        )


class JobProcess:
    """A local Flink running the job (`flink_app.local`); its log, checkpoints and savepoints are in `folder`.

    Leaving the `with` block ends the process and whatever it has started, committed or not; call `stop` before to have
    everything committed.

    With `recover` it begins where the last job of that folder has left off, and a process that was killed is started
    again from its last checkpoint by whoever calls `check`. `begin_from` names another state to begin with. A `short`
    one starts with less work and runs slower (docs/performance.md).
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        parallelism: int = 2,
        checkpoint_seconds: float = 2,
        recover: bool = False,
        begin_from: Path | None = None,
        short: bool = False,
    ) -> None:
        check_folder(folder)
        self._settings = settings
        self._folder = folder.absolute()
        self._arguments = ["--parallelism", str(parallelism), "--checkpoint-seconds", str(checkpoint_seconds)]
        self._recover = recover
        self._short = short
        self._begin_from = begin_from and begin_from.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._state = -1
        self._has_started = False
        self._state_before: Path | None = None  # what the process began from
        self._in_vain = 0  # how often it was started again without a checkpoint in between
        self.restarts = 0
        self._failures = 0

    @property
    def pid(self) -> int:
        """The process id, which is its session's too: the JVM and the Python workers are in it."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """What Flink and the Python workers printed."""
        return self._folder / "job.log"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self) -> None:
        properties = self._folder / "application_properties.json"
        properties.write_bytes(self._settings.to_properties())
        self._state, told = os.pipe()
        os.set_blocking(self._state, False)
        lake = self._settings.lake
        at_aws = lake.root.startswith("s3://") and lake.endpoint is None
        # Stand-ins check no keys, but their clients want some; for a lake at AWS they would hide the real ones.
        keys = {} if at_aws else {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        environment = {
            **keys,
            **({"JVM_ARGS": QUICK_TO_COMPILE} if self._short else {}),
            **os.environ,
            FILE_VARIABLE: str(properties),
            "CLICKSTREAM_STATE_FD": str(told),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
            "PYTHONWARNINGS": "ignore::UserWarning",  # Beam's, about pkg_resources
        }
        self._state_before = latest(self._folder)
        beginning = ["--recover"] * self._recover
        if self._begin_from and not self.restarts:
            beginning += ["--begin-from", str(self._begin_from)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", "flink_app.local", "--folder", str(self._folder), *self._arguments, *beginning],
                env=environment,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(told,),
                start_new_session=True,  # Ctrl-C is for us; we then stop the job in order
                preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509  # it calls the kernel and nothing of Python's
            )
        os.close(told)

    def _end(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the JVM and the workers are in its group
        self._process.wait()
        os.close(self._state)

    @property
    def started(self) -> bool:
        """Whether the job has been submitted; raise `JobFailed` if it has died."""
        self.check()
        self._listen()
        return self._has_started

    @property
    def recoveries(self) -> int:
        """How often the job has begun again, in its process or in a new one."""
        self._listen()
        return self.restarts + self._failures

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            told = os.read(self._state, 1024)
            self._has_started = b"started" in told or self._has_started
            self._failures += told.count(b"failed")

    @property
    def finished(self) -> bool:
        """Whether a bounded job has come to its end; raise `JobFailed` if it has died."""
        self.check()
        assert self._process is not None
        return self._process.poll() == 0

    def check(self) -> None:
        """Raise `JobFailed` if the job has died; one that was killed and is to recover is started again instead."""
        assert self._process is not None
        code = self._process.poll()
        if code in (None, 0):
            return
        if self._recover and (code < 0 or code == FLINK_IS_GONE):
            self._in_vain = self._in_vain + 1 if latest(self._folder) == self._state_before else 0
            if self._in_vain < RESTARTS_IN_VAIN:
                self._end()
                self.restarts += 1
                self._start()
                return
        raise JobFailed(f"the job has died. Its log is {self.log}\n{what_of(self.log.read_text(errors='replace'))}")

    def stop(self) -> None:
        """Commit all that was read, and end the job; one that is killed meanwhile is taken up once more to do so."""
        assert self._process is not None
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            restarts = self.restarts
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Unavailable(
                    f"the job took longer than {STOP_SECONDS:g} s to stop; its log is {self.log}"
                ) from None
            self.check()
            if self.restarts == restarts:
                return
            self._has_started = False
            while not self.started and time.monotonic() < deadline:
                time.sleep(0.1)


_TRACEBACK: Final = r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*\S.*$"
_REPORTED: Final = re.compile(rf"SDK harness for instruction \d+: ({_TRACEBACK})", re.MULTILINE)
_PRINTED: Final = re.compile(rf"^({_TRACEBACK})", re.MULTILINE)
_ECHOES: Final = ("py4j.", "grpc.")
"""How the errors begin that only pass on that the JVM or the worker has gone."""


def what_of(log: str) -> str:
    """Return what a job has died of, out of its log: a Python traceback, or else its last cause or last line.

    The traceback that Flink was given as the reason comes first. One that a worker only printed may be the echo of
    another's end: each of its threads that had a connection open prints one.
    """
    printed: list[str] = [one for one in _PRINTED.findall(log) if not one.splitlines()[-1].startswith(_ECHOES)]
    if tracebacks := _REPORTED.findall(log) or printed:
        return str(tracebacks[-1])
    causes: list[str] = re.findall(r"^Caused by: .*$", log, re.MULTILINE)
    return causes[-1] if causes else log.strip().rpartition("\n")[2]
