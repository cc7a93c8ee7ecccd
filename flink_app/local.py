"""The job on this machine: a Flink in one JVM, started by this process and gone with it.

    python -m flink_app.local --folder .data/flink

reads its settings as Managed Flink's job does, runs until the job ends or SIGTERM arrives, and then commits everything
before it leaves. A bug in the job ends it at once, with the traceback. With `--recover` it begins where the last run in
that folder has left off, and when the job fails of something outside, it begins again from its last checkpoint.
"""

import argparse
import errno
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from clickstream.errors import ClickstreamError, Refused
from clickstream.settings import Settings, flink_uri, read_settings, settings_file
from flink_app import state

JAR = Path(__file__).parent / "target" / "clickstream-flink.jar"
S3_PLUGIN = Path(__file__).parent / "target" / "plugins"
DEPLOYING_SECONDS = 60.0
STARTED, STOPPED, FINISHED, FAILED = "started", "stopped", "finished", "failed"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between a failure and the next attempt
PATIENCE: Final = 3600.0
"""For how long attempts may fail without a checkpoint in between, in seconds."""

_MEMORY: Final = {
    # Beam hands bundles to one thread and another, and each keeps some of what it has freed to itself, as Arrow does:
    # a quarter of a worker's memory.
    "MALLOC_ARENA_MAX": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # What a batch took goes to the next one, and not back to the kernel, which hands it out anew, 5,000 pages a second.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # bytes, the most that glibc accepts
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages, of which there are few to look up; glibc 2.35 or later
}
"""How a local run's processes handle memory, where the environment does not say so; read by glibc and Arrow."""

_BUG: Final = re.compile(r"SDK harness for instruction \d+: Traceback")
"""How Flink reports an exception of a Python function; all else that a job fails of is the world outside."""
_NOT_STARTED: Final = ("JobInitializationException", "ValidationException")


def configuration(settings: Settings, folder: Path, *, parallelism: int, checkpoint_seconds: float) -> dict[str, str]:
    """Say how Flink runs here; on AWS the service says so."""
    options = {
        "pipeline.jars": JAR.resolve().as_uri(),
        "parallelism.default": str(parallelism),
        "taskmanager.numberOfTaskSlots": str(parallelism),
        "taskmanager.memory.managed.size": "128m",
        "execution.checkpointing.interval": f"{int(checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.dir": flink_uri(folder / state.CHECKPOINTS),
        "execution.checkpointing.savepoint-dir": flink_uri(folder / state.SAVEPOINTS),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # Flink would try again for ever, and a bug would look like a hang. `run` tells the two apart.
        "restart-strategy.type": "none",
        # A job that has failed waits so long for a reader of files that waits for it, which is 30 s of nothing.
        "source.reader.close.timeout": "2000",  # ms
        "python.executable": sys.executable,
        "rest.bind-address": "127.0.0.1",
        "rest.address": "127.0.0.1",
        "rest.port": str(_free_port()),
        "metrics.fetcher.update-interval": "1000",  # ms; the live view looks at them
        "io.tmp.dirs": str((folder / "tmp").resolve()),
    }
    if settings.dedup.enabled:
        # A click_id in the heap took 900 bytes, and every checkpoint wrote them all anew: three quarters of the JVM's
        # time. RocksDB writes what is new, and its filters say of a new click_id that it need not be looked for.
        options |= {
            "state.backend.type": "rocksdb",
            "state.backend.rocksdb.use-bloom-filter": "true",
            "execution.checkpointing.incremental": "true",
            "taskmanager.memory.managed.size": "1g",  # at most; with a quarter of it an event took ten times as long
        }
    if settings.lake.root.startswith("s3://"):
        # Otherwise each commit deletes the markers of all parent folders in bulk, which stand-ins for S3 choke on.
        options["fs.s3a.directory.marker.retention"] = "keep"
        if settings.lake.endpoint:
            options |= {"s3.endpoint": settings.lake.endpoint, "s3.path.style.access": "true"}
    return options


def _free_port() -> int:
    """Ask the kernel for a port that nobody has on loopback: of one that Flink chooses it does not tell us."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(options: dict[str, str], folder: Path) -> Any:
    """Start the JVM, if it is not there yet, and make an environment; PyFlink reads these variables once."""
    import pyflink  # noqa: PLC0415  # the variables come first

    home = Path(pyflink.__file__).parent
    conf = folder / "conf"
    shutil.rmtree(conf, ignore_errors=True)
    shutil.copytree(home / "conf", conf)
    for name in ("log", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    # kinesalite's CBOR is not what AWS' clients expect: the source's SDK v1, and the sink's v2.
    os.environ.setdefault("AWS_CBOR_DISABLE", "true")
    os.environ.setdefault("CBOR_ENABLED", "false")
    for name, value in _MEMORY.items():
        os.environ.setdefault(name, value)
    os.environ |= {
        "FLINK_HOME": str(home),  # without it PyFlink overwrites the plugin folder
        "FLINK_PLUGINS_DIR": str(S3_PLUGIN.resolve()),
        "FLINK_CONF_DIR": str(conf.resolve()),
        "FLINK_LOG_DIR": str((folder / "log").resolve()),
        # A process for each slot, as on a cluster; otherwise all workers would be threads of this one, under one GIL.
        "_python_worker_execution_mode": "process",
        "JVM_ARGS": _java_options(os.environ.get("JVM_ARGS", "")),
    }
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415

    starting = threading.Thread(target=get_gateway)
    starting.start()
    from pyflink.common import Configuration  # noqa: PLC0415
    from pyflink.datastream import StreamExecutionEnvironment  # noqa: PLC0415
    from pyflink.util.java_utils import add_jars_to_context_class_loader  # noqa: PLC0415

    import flink_app.main  # noqa: F401, PLC0415  # this takes as long as the JVM does

    starting.join()
    flink = Configuration()
    for key, value in options.items():
        flink.set_string(key, value)
    jvm = get_gateway().jvm.org.apache.flink.core
    plugins = jvm.plugin.PluginUtils.createPluginManagerFromRootFolder(flink._j_configuration)
    jvm.fs.FileSystem.initialize(flink._j_configuration, plugins)
    # As the service does; the option alone makes our classes known to the tasks, and not to who plans them.
    add_jars_to_context_class_loader([options["pipeline.jars"]])
    return StreamExecutionEnvironment.get_execution_environment(flink)


def _java_options(given: str) -> str:
    """Choose the garbage collector that takes least of an event's time, unless the user has chosen one."""
    return given if re.search(r"-XX:\+Use\w+GC\b", given) else f"{given} -XX:+UseParallelGC".lstrip()


def run(
    settings: Settings,
    folder: Path,
    *,
    parallelism: int,
    checkpoint_seconds: float,
    recover: bool = False,
    begin_from: Path | None = None,
) -> str:
    """Run the job until it ends by itself or SIGTERM or SIGINT arrives; return which of the two it was.

    It begins from the state given, or to recover from the last one in the folder, or else anew. To recover means also
    to go on from there when the job fails, with growing pauses, unless it fails of a bug of ours.
    """
    if not JAR.exists():
        raise Refused(f"{JAR} is missing: build it with `make setup`")
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stop.append(got))
    began_from = begin_from or (state.latest(folder) if recover else None)
    state.check(folder, began_from)
    shutil.rmtree(folder / "tmp", ignore_errors=True)  # of a run that was killed
    moved, pause = time.monotonic(), FIRST_PAUSE
    attempt = 0
    while True:
        options = configuration(settings, folder, parallelism=parallelism, checkpoint_seconds=checkpoint_seconds)
        beginning = _beginning(began_from, ours=began_from != begin_from)
        try:
            return _attempt(settings, folder, options | beginning, stop)
        except Exception as error:
            latest = state.latest(folder) if recover else None
            if latest not in (None, began_from):
                began_from, moved, pause = latest, time.monotonic(), FIRST_PAUSE
            if stop or not (recover and _may_pass(error, attempt) and time.monotonic() - moved < PATIENCE):
                raise
            with suppress(OSError):  # a log on a full disk
                print(f"{error}\nThe job has failed. It begins again from {began_from} in {pause:g} s", flush=True)
            _say(FAILED)
            _pause(pause, stop)
            pause = min(2 * pause, LONGEST_PAUSE)
            attempt += 1


def _attempt(settings: Settings, folder: Path, options: dict[str, str], stop: list[int]) -> str:
    environment = _environment(options, folder)
    from flink_app.main import submit  # noqa: PLC0415  # imports pyflink

    # Before the job is there: nothing may fail between its start and the watch over it.
    (folder / state.REST).write_text(f"http://{options['rest.address']}:{options['rest.port']}")
    job = submit(settings, environment)
    _say(STARTED)
    end = job.get_job_execution_result()
    while not stop:
        if end.done():
            end.result()  # raises what the job failed of
            return FINISHED
        time.sleep(0.1)
    _stop_with_savepoint(job, options["execution.checkpointing.savepoint-dir"])
    return STOPPED


def _stop_with_savepoint(job: Any, folder: str) -> None:
    """Commit everything and stop; a job whose tasks are still being deployed is given a minute to come up."""
    deadline = time.monotonic() + DEPLOYING_SECONDS
    while True:
        try:
            job.stop_with_savepoint(False, folder).result()
        except Exception as error:
            if "Not all required tasks are currently running" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _beginning(begin_from: Path | None, *, ours: bool) -> dict[str, str]:
    """Say what to begin from; what a run left in its own folder is removed once it is superseded."""
    if begin_from is None:
        return {}
    return {
        "execution.state-recovery.path": flink_uri(begin_from),
        "execution.state-recovery.claim-mode": "CLAIM" if ours else "NO_CLAIM",
    }


def _may_pass(error: Exception, attempt: int) -> bool:
    """Tell whether to try again: not after a bug of ours, a wrong setting, or a first start that fails.

    Where Flink itself has gone there is nothing left to try with; the exit code says so.
    """
    if isinstance(error, ClickstreamError) or _is_gone(error):
        return False
    if _BUG.search(str(error)) and os.strerror(errno.ENOSPC) not in str(error):
        return False
    return attempt > 0 or not any(one in str(error) for one in _NOT_STARTED)


def _is_gone(error: Exception) -> bool:
    """Tell whether it was the JVM that did not answer, whatever it was asked."""
    return type(error).__name__ in ("Py4JNetworkError", "ConnectionRefusedError") or "Py4JNetworkError" in str(error)


def _pause(seconds: float, stop: list[int]) -> None:
    end = time.monotonic() + seconds
    while not stop and time.monotonic() < end:
        time.sleep(0.1)


def _say(state: str) -> None:
    """Tell the process that started this one, if it asked to be told."""
    if pipe := os.environ.get("CLICKSTREAM_STATE_FD"):
        with suppress(BrokenPipeError):
            os.write(int(pipe), f"{state}\n".encode())


def main() -> int:
    """Run the job from the command line."""
    parser = argparse.ArgumentParser(description="Run the job in a Flink of its own on this machine.")
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoints, savepoints and logs")
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=10.0)
    parser.add_argument("--recover", action="store_true", help="begin, and after a failure go on, from the last state")
    parser.add_argument("--begin-from", type=Path, help="a checkpoint or savepoint to begin from")
    given = parser.parse_args()
    try:
        ended = run(
            read_settings(settings_file()),
            given.folder,
            parallelism=given.parallelism,
            checkpoint_seconds=given.checkpoint_seconds,
            recover=given.recover,
            begin_from=given.begin_from,
        )
    except ClickstreamError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        if not _is_gone(error):
            raise
        print("Flink's JVM has gone", file=sys.stderr)
        return state.FLINK_IS_GONE
    _say(ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
