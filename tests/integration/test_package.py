"""The zip for Managed Flink holds what the service needs and nothing else, and a real Flink cluster runs it."""

import hashlib
import itertools
import json
import random
import re
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import maxminddb
import pytest

from cli.servers import PROJECT, Kinesalite, RedisServer
from cli.setup import JAR
from cli.tally import Tally
from clickstream.errors import Refused
from clickstream.settings import Geo, Lake, Offers, Redis, Settings, Source
from connectors.lake import Lake as LakeDoor
from deploy import package
from flink_app.wiring import geo_provider
from generator.malformed import mixed
from generator.shoppers import Shoppers
from tests import oracle
from tests.cluster import RUN_OPTIONS, Cluster, mapped, python_with
from tests.jobs import GEO, in_redis, last_accesses, publish, stream_records, written

EVENTS = 3_000
PATIENCE = 120.0  # seconds; a bound, not a claim
RUN = {"python": "main.py", "jarfile": "lib/clickstream-flink.jar", "pyFiles": "dep/"}
LARGEST_ZIP = 512 << 20  # docs.aws.amazon.com/managed-flink/latest/java/limits.html


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("package") / "clickstream-flink.zip"
    package.build(to, JAR, GEO)
    return to


@pytest.fixture(scope="module")
def names(zipped: Path) -> set[str]:
    with zipfile.ZipFile(zipped) as packed:
        return set(packed.namelist())


@pytest.fixture(scope="module")
def unpacked(zipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def wheels(unpacked: Path) -> dict[str, PathDistribution]:
    found = [PathDistribution(info) for info in (unpacked / "dep").glob("*.dist-info")]
    return {one.name.replace("_", "-").lower(): one for one in found}


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with apache-flink and what it requires, as on Managed Flink, where the checkout is not installed."""
    return python_with("apache-flink", tmp_path_factory.mktemp("bare") / "python")


def test_the_zip_holds_our_modules_the_wheels_one_jar_and_nothing_else(
    names: set[str], wheels: dict[str, PathDistribution]
) -> None:
    ours = {
        f"dep/{module.relative_to(PROJECT).as_posix()}"
        for name in ("clickstream", "enrichment", "connectors", "flink_app")
        for module in (PROJECT / name).rglob("*.py")
    } - {"dep/flink_app/local.py"}
    installed = {f"dep/{file}" for one in wheels.values() for file in one.files or () if file.parts[0] != "bin"}

    assert names == {RUN["python"], RUN["jarfile"], f"dep/geo/{GEO.name}"} | ours | installed
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert {"dep/flink_app/main.py", "dep/clickstream/event.py", "dep/connectors/lake.py"} <= ours


def test_without_a_geo_database_none_is_taken_along_and_the_same_sources_make_the_same_bytes(
    zipped: Path, tmp_path: Path
) -> None:
    package.build(tmp_path / "with.zip", JAR, GEO)
    package.build(tmp_path / "without.zip", JAR)

    assert _digest(tmp_path / "with.zip") == _digest(zipped)
    with zipfile.ZipFile(tmp_path / "without.zip") as packed:
        assert not [name for name in packed.namelist() if "geo/" in name or name.endswith(".mmdb")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["with.zip", "without.zip"]


def test_the_zip_is_small_enough_for_the_service(zipped: Path, unpacked: Path) -> None:
    jar = unpacked / RUN["jarfile"]
    print(f"\njar {jar.stat().st_size / 1e6:.1f} MB, zip with a geo database {zipped.stat().st_size / 1e6:.1f} MB")

    assert zipped.stat().st_size < LARGEST_ZIP


def test_the_locked_packages_are_there_for_python_3_11_on_any_linux_x86_64(
    wheels: dict[str, PathDistribution], unpacked: Path
) -> None:
    lock = (PROJECT / "deploy" / "requirements.lock").read_text()
    tags = {
        name: re.findall(r"^Tag: (\S+)", one.read_text("WHEEL") or "", re.MULTILINE) for name, one in wheels.items()
    }
    compiled = {name for name in tags if not any(tag.endswith("-none-any") for tag in tags[name])}

    assert {name: one.version for name, one in wheels.items()} == dict(re.findall(r"(?m)^(\S+)==(\S+)", lock))
    for name in compiled:
        assert {"cp311-cp311-manylinux2014_x86_64", "cp311-cp311-manylinux_2_17_x86_64"} & set(tags[name]), name
    libraries = list(unpacked.rglob("*.so*"))
    assert {library.relative_to(unpacked / "dep").parts[0] for library in libraries} >= {"msgspec", "maxminddb"}
    assert all(library.name.endswith(".cpython-311-x86_64-linux-gnu.so") for library in libraries)
    assert {library.read_bytes()[:5] + library.read_bytes()[18:20] for library in libraries} == {b"\x7fELF\x02\x3e\x00"}


def test_the_jar_declares_the_factories_of_all_connectors_and_formats_and_no_signatures(unpacked: Path) -> None:
    with zipfile.ZipFile(unpacked / RUN["jarfile"]) as jar:
        entries = jar.namelist()
        factories = jar.read("META-INF/services/org.apache.flink.table.factories.Factory").decode().splitlines()

    declared = {line for line in factories if line and not line.startswith("#")}
    assert declared >= {
        "org.apache.flink.streaming.connectors.kinesis.table.KinesisDynamicTableFactory",
        "org.apache.flink.connector.kinesis.table.KinesisDynamicTableSinkFactory",
        "org.apache.flink.formats.parquet.ParquetFileFormatFactory",
    }
    assert {f"{name.replace('.', '/')}.class" for name in declared} <= set(entries)
    assert not [name for name in entries if re.fullmatch(r"META-INF/[^/]+\.(SF|DSA|RSA)", name)]
    assert not [name for name in entries if name.startswith("org/apache/flink/core/")]  # Flink's own is the service's


def test_nothing_secret_is_in_what_we_wrote(unpacked: Path) -> None:
    secret = re.compile(rb"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|" + re.escape(str(PROJECT).encode()))
    ours = [unpacked / RUN["python"], *(file for name in package.OURS for file in (unpacked / "dep" / name).rglob("*"))]

    assert not [file for file in ours if file.is_file() and secret.search(file.read_bytes())]


def test_all_that_the_job_imports_is_in_the_zip_or_comes_with_flink(unpacked: Path, bare_python: Path) -> None:
    ours = ("clickstream", "enrichment", "connectors", "flink_app")
    brought = ("msgspec", "redis", "maxminddb", "boto3", "requests", "urllib3")
    where = (
        "import importlib.util, json, sys\n"
        "print(json.dumps({name: getattr(importlib.util.find_spec(name), 'origin', None) for name in sys.argv[1:]}))"
    )
    job = "import sys, flink_app.main\nprint(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', 0)))"

    alone = json.loads(_says(bare_python, where, *ours, *brought))
    with_dep = json.loads(_says(bare_python, where, *ours, *brought, dep=unpacked / "dep"))
    imported = _says(bare_python, job, dep=unpacked / "dep").split()

    assert [name for name in (*ours, "msgspec", "redis", "maxminddb", "boto3") if alone[name]] == []
    assert {Path(file).parents[1] for file in with_dep.values()} == {unpacked / "dep"}
    assert str(unpacked / "dep" / "flink_app" / "wiring.py") in imported
    assert not [file for file in imported if Path(file).is_relative_to(PROJECT)]


def test_a_relative_geo_database_is_found_on_pythons_path_or_missed_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(lake=Lake(root="lake"), geo=Geo(mmdb=f"geo/{GEO.name}"))
    (tmp_path / "dep" / "geo").mkdir(parents=True)
    (tmp_path / "dep" / "geo" / GEO.name).symlink_to(GEO)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(Refused, match=r"no geo database geo/GeoLite2-City.mmdb in .*clickstream package"):
        geo_provider(settings)
    monkeypatch.syspath_prepend(tmp_path / "dep")
    along_the_path = geo_provider(settings).find(["8.8.8.8"])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "dep")
    in_the_working_folder = geo_provider(settings).find(["8.8.8.8"])

    assert along_the_path == in_the_working_folder
    assert along_the_path["8.8.8.8"] is not None


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "flink") as running:
        yield running


def test_a_real_cluster_runs_the_zip_and_all_comes_out_as_the_oracle_says(
    unpacked: Path,
    cluster: Cluster,
    kinesalite: Kinesalite,
    redis_server: RedisServer,
    redis: Any,
    stream: str,
    tmp_path: Path,
) -> None:
    kinesalite.create_stream(f"{stream}-offers")
    settings = Settings(
        lake=Lake(root=(tmp_path / "lake").as_uri()),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=Geo(mmdb=f"geo/{GEO.name}"),
    )
    groups = [*json.loads(settings.to_properties()), {"PropertyGroupId": RUN_OPTIONS, "PropertyMap": RUN}]
    properties = tmp_path / "application_properties.json"
    properties.write_text(json.dumps(groups))
    shoppers = Shoppers(11)
    users = {customer.customer_id: customer.name for customer in shoppers.customers()}
    in_redis(redis, users)
    records = itertools.islice(mixed(shoppers.records(), 0.02, random.Random(11)), EVENTS)
    assert publish(kinesalite, stream, records) == EVENTS
    before = _files_but_bytecode(unpacked)

    job = cluster.submit(unpacked, properties)
    _wait_until_committed(settings, cluster, job)
    workers = {pid: mapped(pid) for pid in cluster.workers()}
    savepoint = cluster.stop_job(job)

    accepted = stream_records(kinesalite, stream)
    with maxminddb.open_database(GEO) as places:
        expected = oracle.expected(accepted, places.get, users)
    assert (len(accepted), len(expected.rejected)) == (EVENTS, EVENTS // 50)
    assert expected.offers
    out = written(settings, kinesalite)
    problems = oracle.differences(expected, out.enriched, out.rejected, out.offers, last_accesses(redis))
    assert not problems, "\n".join(problems[:20])
    raw = [(row["payload"], row["arrival_timestamp"], row["shard_id"], row["sequence_number"]) for row in out.raw]
    assert Counter(raw) == Counter((one.payload, one.arrival, *one.origin) for one in accepted)
    assert (Path(savepoint.removeprefix("file:")) / "_metadata").is_file()
    assert cluster.state(job) == "FINISHED"

    _run_what_the_zip_brought(workers, cluster.temporary)
    assert _files_but_bytecode(unpacked) == before
    assert list(cluster.home.iterdir()) == []


def _wait_until_committed(settings: Settings, cluster: Cluster, job: str) -> None:
    tally = Tally(LakeDoor(settings.lake.root))
    deadline = time.monotonic() + PATIENCE
    while tally.update().processed < EVENTS or tally.rows["raw"] < EVENTS:
        state = cluster.state(job)
        assert state in ("CREATED", "INITIALIZING", "RUNNING"), f"the job is {state}: {cluster.why(job)}"
        assert time.monotonic() < deadline, f"{dict(tally.rows)} of {EVENTS}: {cluster.why(job)}"
        time.sleep(0.2)


def _run_what_the_zip_brought(workers: dict[int, set[str]], temporary: Path) -> None:
    """The Python processes work with libraries and a database out of the `dep/` that Flink has sent to them."""
    at_work = [files for files in workers.values() if any("msgspec/_core" in file for file in files)]
    assert at_work
    for files in at_work:
        for what in ("msgspec/_core.", "maxminddb/extension.", f"geo/{GEO.name}"):
            places = [file for file in files if what in file]
            assert places, what
            assert all(Path(file).is_relative_to(temporary) and "/dep/" in file for file in places), places


def _files_but_bytecode(folder: Path) -> set[str]:
    """Return what is in a folder; bytecode beside modules is a convenience that a read-only folder goes without."""
    return {str(file) for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}


def _says(python: Path, program: str, *words: str, dep: Path | None = None) -> str:
    environment = {"PYTHONPATH": str(dep), "PYTHONDONTWRITEBYTECODE": "1"} if dep else {}
    command = [python, "-W", "ignore", "-c", program, *words]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
