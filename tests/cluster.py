"""A Flink session cluster out of the apache-flink package, to which Managed Flink's zips are submitted."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from signal import SIGKILL
from typing import Any, Self

import msgspec
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from cli.servers import LOOPBACK, Server, free_port
from clickstream.settings import FILE_VARIABLE

PATIENCE = 60.0  # seconds for a JVM to come up, or a command to be through
RUN_OPTIONS = "kinesis.analytics.flink.run.options"
LOG_LINES = 40


class Cluster:
    """One job manager and one task manager on loopback, each a process of ours, with nothing outside their folder.

    Their Python has what the service's has: apache-flink and what that needs. Our project is not there, nor are the
    packages that only our project needs.
    """

    def __init__(self, folder: Path, *, slots: int = 2, checkpoint_seconds: float = 2) -> None:
        self.folder = folder.absolute()
        self._slots = slots
        self._checkpoint_seconds = checkpoint_seconds
        self._job_manager = JobManager(self.folder)
        self._task_manager = TaskManager(self.folder, self._job_manager)

    @property
    def home(self) -> Path:
        """What the cluster takes for the user's home."""
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        """What the cluster takes for /tmp, the one place that Managed Flink lets a job write to."""
        return self.folder / "tmp"

    def __enter__(self) -> Self:
        self._install()
        with ExitStack() as starting:
            starting.enter_context(self._job_manager)
            starting.enter_context(self._task_manager)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def submit(self, unpacked: Path, properties: Path) -> str:
        """Submit an unpacked zip as the service does, by its run options alone; return the job's id."""
        groups = {one["PropertyGroupId"]: one["PropertyMap"] for one in json.loads(properties.read_bytes())}
        options = groups[RUN_OPTIONS]
        words = ["-py", options["python"], "-pyfs", options["pyFiles"], "-j", options["jarfile"]]
        said = self._flink("run", "-d", *words, cwd=unpacked, more={FILE_VARIABLE: str(properties)})
        job = re.search(r"JobID ([0-9a-f]{32})", said)
        assert job, said
        return job[1]

    def stop_job(self, job: str) -> str:
        """Stop a job with a savepoint, and with it all commits; return where the savepoint is."""
        said = self._flink("stop", "-p", (self.folder / "savepoints").as_uri(), job, cwd=self.folder)
        savepoint = re.search(r"Savepoint completed\. Path: (\S+)", said)
        assert savepoint, said
        return savepoint[1]

    def state(self, job: str) -> str:
        """Ask what a job does: RUNNING, FINISHED, FAILED and so on."""
        return str(self._job_manager.ask(f"/jobs/{job}")["state"])

    def why(self, job: str) -> str:
        """Say what a job failed of, and the end of what both managers said."""
        failed_of = self._job_manager.ask(f"/jobs/{job}/exceptions").get("root-exception", "")
        return "\n".join([*_of_concern(failed_of), self.last_words()])

    def last_words(self) -> str:
        """Return the ends of both managers' logs, without what is of no concern."""
        said = []
        for one in (self._job_manager, self._task_manager):
            if one.log.exists():
                lines = _of_concern(one.log.read_text(errors="replace"))
                said += [f"--- {one.title}, all of it in {one.log}", *lines[-LOG_LINES:]]
        return "\n".join(said)

    def workers(self) -> list[int]:
        """Return the process ids of the task manager's Python processes."""
        return [pid for pid in group(self._task_manager.pid) if "python" in os.readlink(f"/proc/{pid}/exe")]

    def _flink(self, *words: str, cwd: Path, more: Mapping[str, str] | None = None) -> str:
        action, *rest = words
        done = subprocess.run(
            [self.folder / "bin" / "flink", action, "-m", f"{LOOPBACK}:{self._job_manager.port}", *rest],
            cwd=cwd,
            env={**os.environ, **environment(self.folder), **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"flink {action} failed\n{done.stdout}\n{done.stderr}\n{self.last_words()}"
        return done.stdout

    def _install(self) -> None:
        """Lay out Flink's folders; jars, the most of it, are links to the package's."""
        spec = find_spec("pyflink")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        for name in ("lib", "opt", "plugins"):
            shutil.copytree(package / name, self.folder / name, copy_function=os.symlink)
        for name in ("bin", "conf"):
            shutil.copytree(package / name, self.folder / name)
        for jar in (self.folder / "opt").glob("flink-python-*.jar"):
            (self.folder / "lib" / jar.name).symlink_to(jar.resolve())
        for folder in (self.home, self.temporary):
            folder.mkdir()
        python = python_with("apache-flink", self.folder / "python")
        config = self.folder / "conf" / "config.yaml"
        given = YAML(typ="safe").load(config)
        java_options = [
            given["env"]["java"]["opts"]["all"],
            f"-Djava.io.tmpdir={self.temporary}",
            f"-Duser.home={self.home}",
            "-XX:-UsePerfData",  # else a file in /tmp
        ]
        options = {
            "env.java.opts.all": " ".join(java_options),
            **dict.fromkeys(_ADDRESSES, LOOPBACK),
            "jobmanager.memory.process.size": "1024m",
            "taskmanager.memory.process.size": "1728m",
            "taskmanager.numberOfTaskSlots": self._slots,
            "parallelism.default": self._slots,
            "io.tmp.dirs": str(self.temporary),
            "execution.checkpointing.interval": f"{int(self._checkpoint_seconds * 1000)} ms",
            "execution.checkpointing.dir": (self.folder / "checkpoints").as_uri(),
            "restart-strategy.type": "none",  # a failure is shown at once
            "python.executable": str(python),
            "python.client.executable": str(python),
        }
        config.write_text(json.dumps(options, indent=2))  # JSON is YAML too


class _Manager(Server):
    """One of Flink's two programs, in the cluster's folder but with a log of its own."""

    script: str

    def __init__(self, cluster: Path) -> None:
        super().__init__(cluster / self.script, patience=PATIENCE)
        self._cluster = cluster

    def options(self) -> Mapping[str, Any]:
        """Return the options that depend on ports."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        options = [word for key, value in self.options().items() for word in ("-D", f"{key}={value}")]
        return [self._cluster / "bin" / f"{self.script}.sh", "start-foreground", *options]

    def environment(self) -> Mapping[str, str]:
        return environment(self._cluster)


class JobManager(_Manager):
    """Flink's dispatcher and REST server; `port` is the latter's."""

    title = "Flink's job manager"
    script = "jobmanager"
    rpc_port = 0

    def options(self) -> Mapping[str, Any]:
        self.rpc_port = free_port()
        return {"rest.port": self.port, "rest.bind-port": self.port, "jobmanager.rpc.port": self.rpc_port}

    def answers(self) -> bool:
        if f"Rest endpoint listening at {LOOPBACK}:{self.port}" not in self.log.read_text(errors="replace"):
            return False
        with suppress(OSError):
            return "taskmanagers" in self.ask("/overview")
        return False

    def ask(self, what: str) -> Any:
        """Ask the REST server."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{LOOPBACK}:{self.port}{what}", timeout=10) as answer:
            return msgspec.json.decode(answer.read())


class TaskManager(_Manager):
    """Flink's worker, which starts the Python processes; `port` is where the job manager calls it."""

    title = "Flink's task manager"
    script = "taskmanager"

    def __init__(self, cluster: Path, job_manager: JobManager) -> None:
        super().__init__(cluster)
        self._job_manager = job_manager

    def options(self) -> Mapping[str, Any]:
        return {"jobmanager.rpc.port": self._job_manager.rpc_port, "taskmanager.rpc.port": self.port}

    def answers(self) -> bool:
        return self._job_manager.ask("/overview")["taskmanagers"] == 1

    def stop(self) -> None:
        """End it, and what is left of its Python processes, which are in its group."""
        group = self._process.pid if self._process else None
        super().stop()
        if group is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, SIGKILL)


def _of_concern(log: str) -> list[str]:
    """Leave out what is well, and the JVM's call stacks; Python's stay."""
    return [line for line in log.splitlines() if " INFO " not in line and not line.startswith("\tat ")]


_ADDRESSES = (
    *("rest.address", "rest.bind-address", "jobmanager.rpc.address", "jobmanager.bind-host"),
    *("taskmanager.host", "taskmanager.bind-host"),
)


def environment(cluster: Path) -> dict[str, str]:
    """Return the environment of all of Flink's programs."""
    return {
        "FLINK_CONF_DIR": str(cluster / "conf"),
        "FLINK_LOG_DIR": str(cluster / "log"),
        "FLINK_PID_DIR": str(cluster / "pid"),
        "FLINK_IDENT_STRING": "test",
        "FLINK_PLUGINS_DIR": str(cluster / "plugins"),
        "FLINK_HOME": str(cluster),
        "HOME": str(cluster / "home"),
        "TMPDIR": str(cluster / "tmp"),
        "PYTHONPATH": "",  # ours is on it, in pytest's
        "PYTHONNOUSERSITE": "1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_CBOR_DISABLE": "1",  # for kinesalite: the source's SDK v1 …
        "CBOR_ENABLED": "false",  # … and the sink's v2
    }


def python_with(package: str, folder: Path) -> Path:
    """Make a Python that has a package of ours and all it requires, by links, but nothing else; return its program."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in sorted(requirements(package)):
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).is_symlink():
                (site / top).symlink_to(str(distribution(name).locate_file(top)))
    return folder / "bin" / "python"


def requirements(package: str) -> set[str]:
    """Return the names of a package and of all that it requires here."""
    found: set[str] = set()
    unseen = [package]
    while unseen:
        name = unseen.pop()
        if name not in found:
            found.add(name)
            wanted = map(Requirement, distribution(name).requires or ())
            unseen += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def group(leader: int) -> list[int]:
    """Return the processes of a process group."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(after_name[2]) == leader:
                    members.append(int(folder.name))
    return members


def mapped(pid: int) -> set[str]:
    """Return the files that a process has mapped into memory: its libraries, and databases that it reads so."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line}
