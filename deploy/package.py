"""Builds the zip that Managed Service for Apache Flink runs.

Inside: `main.py`, one jar in `lib/`, and in `dep/` our packages and the wheels they need. Managed Flink has Python
3.11, pandas, numpy and pyarrow by way of its own apache-flink; the rest must come along, built for Linux x86_64.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from clickstream.errors import Refused

PROJECT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = PROJECT / "deploy" / "requirements.lock"
OURS: Final = ("clickstream", "enrichment", "connectors", "flink_app")
_PLATFORM: Final = ("--python-platform", "x86_64-manylinux2014", "--python-version", "3.11", "--only-binary", ":all:")
_ONLY_LOCAL: Final = Path("flink_app", "local.py")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def build(to: Path, jar: Path, geo_database: Path | None = None) -> None:
    """Write the zip; the same sources make the same bytes."""
    if geo_database is not None and not geo_database.is_file():
        raise Refused(f"there is no geo database at {geo_database}")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "zip"
        dep = root / "dep"
        _install(dep)
        for package in OURS:
            _copy(package, dep)
        if geo_database is not None:
            (dep / "geo").mkdir()
            shutil.copyfile(geo_database, dep / "geo" / geo_database.name)
        shutil.copyfile(PROJECT / "flink_app" / "main.py", root / "main.py")
        (root / "lib").mkdir()
        shutil.copyfile(jar, root / "lib" / jar.name)
        to.parent.mkdir(parents=True, exist_ok=True)
        _zip(root, to)


def _install(target: Path) -> None:
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(target), "--require-hashes"]
    done = subprocess.run(  # noqa: S603
        [*uv, "--no-deps", *_PLATFORM, "-r", str(LOCK)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Refused(f"the packages of {LOCK.name} cannot be had:\n{done.stderr.strip()}\nNext: try again")
    shutil.rmtree(target / "bin", ignore_errors=True)  # commands, which name this machine's Python
    (target / ".lock").unlink(missing_ok=True)  # uv's


def _copy(package: str, dep: Path) -> None:
    """Copy a package's modules; whatever else lies about in a checkout stays there."""
    for module in sorted((PROJECT / package).rglob("*.py")):
        place = module.relative_to(PROJECT)
        if place != _ONLY_LOCAL:
            (dep / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, dep / place)


def _zip(root: Path, to: Path) -> None:
    half = to.with_suffix(".part")
    with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_STORED if file.suffix == ".jar" else zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, file.read_bytes())
    half.replace(to)
