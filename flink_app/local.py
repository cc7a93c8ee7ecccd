"""The job on this machine: a Flink in one JVM, started by this process and gone with it.

    python -m flink_app.local --folder .data/flink

reads its settings as Managed Flink's job does, runs until the job ends or SIGTERM arrives, and then commits everything
before it leaves. A bug in the job ends it at once, with the traceback.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from clickstream.errors import ClickstreamError, Refused
from clickstream.settings import Settings, flink_uri, read_settings, settings_file

JAR = Path(__file__).parent / "target" / "clickstream-flink.jar"
S3_PLUGIN = Path(__file__).parent / "target" / "plugins"
DEPLOYING_SECONDS = 60.0
STARTED, STOPPED, FINISHED = "started", "stopped", "finished"


def configuration(settings: Settings, folder: Path, *, parallelism: int, checkpoint_seconds: float) -> dict[str, str]:
    """Say how Flink runs here; on AWS the service says so."""
    options = {
        "pipeline.jars": JAR.resolve().as_uri(),
        "parallelism.default": str(parallelism),
        "taskmanager.numberOfTaskSlots": str(parallelism),
        "taskmanager.memory.managed.size": "128m",
        "execution.checkpointing.interval": f"{int(checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.dir": flink_uri(folder / "checkpoints"),
        "execution.checkpointing.savepoint-dir": flink_uri(folder / "savepoints"),
        "restart-strategy.type": "none",  # here a failure is shown at once; Flink would try again for ever
        "python.executable": sys.executable,
        # A process for each slot, as on a cluster; otherwise all workers would be threads under one GIL.
        "_python_worker_execution_mode": "process",
        "rest.bind-address": "127.0.0.1",
        "rest.address": "127.0.0.1",
        "rest.port": "0",
        "io.tmp.dirs": str((folder / "tmp").resolve()),
    }
    if settings.lake.root.startswith("s3://"):
        # Otherwise each commit deletes the markers of all parent folders in bulk, which stand-ins for S3 choke on.
        options["fs.s3a.directory.marker.retention"] = "keep"
        if settings.lake.endpoint:
            options |= {"s3.endpoint": settings.lake.endpoint, "s3.path.style.access": "true"}
    return options


def _environment(options: dict[str, str], folder: Path) -> Any:
    """Start the JVM and make its environment; PyFlink reads these variables once, when it does so."""
    import pyflink  # noqa: PLC0415  # the variables come first

    home = Path(pyflink.__file__).parent
    conf = folder / "conf"
    shutil.rmtree(conf, ignore_errors=True)
    shutil.copytree(home / "conf", conf)
    for name in ("log", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "FLINK_HOME": str(home),  # without it PyFlink overwrites the plugin folder
        "FLINK_PLUGINS_DIR": str(S3_PLUGIN.resolve()),
        "FLINK_CONF_DIR": str(conf.resolve()),
        "FLINK_LOG_DIR": str((folder / "log").resolve()),
        "AWS_CBOR_DISABLE": "1",  # kinesalite's CBOR is not what AWS' clients expect: the source's SDK v1 …
        "CBOR_ENABLED": "false",  # … and the sink's v2
    }
    from pyflink.common import Configuration  # noqa: PLC0415
    from pyflink.datastream import StreamExecutionEnvironment  # noqa: PLC0415
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415

    flink = Configuration()
    for key, value in options.items():
        flink.set_string(key, value)
    jvm = get_gateway().jvm.org.apache.flink.core
    plugins = jvm.plugin.PluginUtils.createPluginManagerFromRootFolder(flink._j_configuration)
    jvm.fs.FileSystem.initialize(flink._j_configuration, plugins)
    return StreamExecutionEnvironment.get_execution_environment(flink)


def run(settings: Settings, folder: Path, *, parallelism: int, checkpoint_seconds: float) -> str:
    """Run the job until it ends by itself or SIGTERM or SIGINT arrives; return which of the two it was."""
    if not JAR.exists():
        raise Refused(f"{JAR} is missing: build it with `make setup`")
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stop.append(got))
    options = configuration(settings, folder, parallelism=parallelism, checkpoint_seconds=checkpoint_seconds)
    environment = _environment(options, folder)
    from flink_app.main import submit  # noqa: PLC0415  # imports pyflink

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
    given = parser.parse_args()
    try:
        settings = read_settings(settings_file())
        state = run(settings, given.folder, parallelism=given.parallelism, checkpoint_seconds=given.checkpoint_seconds)
    except ClickstreamError as error:
        print(error, file=sys.stderr)
        return 1
    _say(state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
