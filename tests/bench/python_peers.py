"""The peers in Python: processes that take a share of the files each, and say how far they are."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cli.servers import PROJECT, RedisServer
from cli.setup import GEO
from clickstream.errors import Refused
from tests.bench.contender import LAKE, Contender, Program
from tests.bench.equal import differences
from tests.bench.measure import Point, watch
from tests.bench.peers.given import DONE
from tests.bench.records import Records

LOCK = Path(__file__).with_name("peers.lock")
PYTHON = PROJECT / ".venv-peers" / "bin" / "python"


def python_peer(name: str, module: str, processes: int, *, most: int | None = None) -> Contender:
    """Make a contender of a module of `tests.bench.peers`."""

    def run(records: Records, folder: Path, redis: RedisServer) -> Sequence[Point]:
        if not PYTHON.exists():
            raise Refused(f"{PYTHON} is missing. Next: make .venv-peers/.locked")
        with ExitStack() as stack:
            programs = [
                stack.enter_context(
                    Program(_command(module, records, index, processes, folder, redis), folder / f"{index}.log")
                )
                for index in range(processes)
            ]

            def said() -> list[list[str]]:
                return [program.log.read_text().splitlines() for program in programs]

            def processed() -> int:
                numbers = [max((int(line) for line in lines if line.isdigit()), default=-1) for lines in said()]
                return -1 if -1 in numbers else sum(numbers)

            def running() -> bool:
                return all(program.running for program in programs) and not all(DONE in lines for lines in said())

            points: list[Point] = []
            for point in watch([program.pid for program in programs], redis.pid, processed, running):
                points.append(point)
                if len(points) == 1:
                    for program in programs:
                        program.go()
            return points

    return Contender(name, run, differences, most)


def versions(*packages: str) -> list[str]:
    """Return which versions of these the peers have, by their lock."""
    pins = dict(line.split(" ")[0].split("==") for line in LOCK.read_text().splitlines() if "==" in line)
    return [f"{package} {pins[package]}" for package in packages]


def _command(module: str, records: Records, index: int, of: int, folder: Path, redis: RedisServer) -> list[str | Path]:
    command: list[str | Path] = [PYTHON, "-m", f"tests.bench.peers.{module}", "--index", str(index)]
    command += ["--lake", folder / LAKE, "--redis", redis.url, "--mmdb", GEO]
    return [*command, "--files", *records.files()[index::of]]
