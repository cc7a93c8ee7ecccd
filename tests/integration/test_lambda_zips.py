"""The Lambdas' zips hold what their handlers need and nothing else, and start where there is nothing else."""

import hashlib
import re
import ssl
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from cli.servers import PROJECT
from clickstream.errors import Refused
from deploy import package

UNZIPPED = 250 << 20  # docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
HEAVY = {"pyflink", "apache_flink", "pandas", "numpy", "pyarrow", "typer", "rich", "pip", "bin", "__pycache__"}
OURS = {"clickstream", "connectors", "enrichment", "deploy", "cli", "flink_app", "generator", "tests"}

every_lambda = pytest.mark.parametrize("name", list(package.LAMBDAS))


@pytest.fixture(scope="module")
def unpacked(lambda_zips: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, zipped in lambda_zips.items():
        folders[name] = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(zipped) as packed:
            packed.extractall(folders[name])
    return folders


@every_lambda
def test_a_zip_holds_its_handler_our_packages_and_the_locked_wheels(name: str, unpacked: dict[str, Path]) -> None:
    found = {file.relative_to(unpacked[name]).as_posix() for file in unpacked[name].rglob("*") if file.is_file()}
    wheels = [PathDistribution(info) for info in unpacked[name].glob("*.dist-info")]
    installed = {str(file) for wheel in wheels for file in wheel.files or () if ".." not in file.parts}
    lock = (PROJECT / "deploy" / "lambdas" / f"{name}.lock").read_text()

    rest = found - installed
    assert {path.partition("/")[0] for path in found} & HEAVY == set()
    assert f"deploy/lambdas/{name}.py" in rest
    assert {path for path in rest if path.startswith("deploy/lambdas/")} == {
        "deploy/lambdas/__init__.py",
        f"deploy/lambdas/{name}.py",
    }
    assert {path.partition("/")[0] for path in rest} == {
        *(place.partition("/")[0] for place in package.LAMBDAS[name]),
        "deploy",
        *(["rds-ca.pem"] if name == "names" else []),
    }
    assert all(path.endswith((".py", ".pem")) for path in rest)
    assert {wheel.name.replace("_", "-").lower(): wheel.version for wheel in wheels} == dict(
        re.findall(r"(?m)^(\S+)==(\S+)", lock)
    )
    assert lock.count("--hash=sha256:") >= len(wheels)


@every_lambda
def test_a_zip_fits_into_lambda_and_its_libraries_are_for_python_3_11_on_x86_64(
    name: str, unpacked: dict[str, Path]
) -> None:
    files = [file for file in unpacked[name].rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) < UNZIPPED
    for library in (file for file in files if ".so" in file.suffixes):
        assert ".cpython-311-x86_64-linux-gnu.so" in library.name
        assert library.read_bytes()[18:20] == b"\x3e\x00"


@every_lambda
def test_a_handler_starts_where_there_is_only_its_zip(name: str, unpacked: dict[str, Path]) -> None:
    start = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from importlib import import_module\n"
        "handler = import_module(sys.argv[2]).handler\n"
        "import boto3; boto3.client('secretsmanager', region_name='eu-central-1')\n"
        "files = [m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)]\n"
        "heavy = {'numpy', 'pyarrow', 'pyflink', 'pandas'} & set(sys.modules)\n"
        "print(*(file for file in files if '-packages' in file), *heavy)\n"
        "print(callable(handler))"
    )
    base = Path(sys.base_prefix) / "bin" / "python3.11"

    done = subprocess.run(
        [base, "-I", "-S", "-c", start, unpacked[name], f"deploy.lambdas.{name}"],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "\nTrue\n"), done.stderr


def test_the_same_sources_make_the_same_bytes(lambda_zips: dict[str, Path], tmp_path: Path) -> None:
    package.build_lambda("scaling", tmp_path / "again.zip")

    digests = {
        hashlib.sha256(file.read_bytes()).hexdigest() for file in (lambda_zips["scaling"], tmp_path / "again.zip")
    }
    assert len(digests) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["again.zip"]


def test_the_authorities_of_aurora_are_those_of_rds_in_all_regions(unpacked: dict[str, Path]) -> None:
    context = ssl.create_default_context(cafile=unpacked["names"] / "rds-ca.pem")

    names = [dict(pair[0] for pair in one["subject"]) for one in context.get_ca_certs()]
    assert {name["organizationName"] for name in names} == {"Amazon Web Services, Inc."}
    common = " ".join(name["commonName"] for name in names)
    for region in ("us-east-1", "eu-central-1", "ap-northeast-1", "sa-east-1"):
        assert f"Amazon RDS {region} Root CA RSA2048 G1" in common


def test_there_is_no_other_lambda(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Next: choose one of names, offers, scaling"):
        package.build_lambda("prices", tmp_path / "prices.zip")


def test_without_npms_packages_the_authorities_are_missed_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "RDS_CA", tmp_path / "missing.js")

    with pytest.raises(Refused, match=r"missing\.js is missing\. Next: npm ci"):
        package.rds_ca()
