"""What Flink makes of the job, and what happens when a function of ours has a bug."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.job import JobFailed, JobProcess
from cli.servers import PROJECT, Kinesalite, RedisServer
from clickstream.settings import Geo, Lake, Offers, Redis, Settings, Source
from generator.shoppers import Shoppers
from tests.jobs import GEO, processes_with, publish, run_until_committed

PLAN = """
import json, os, sys
from pathlib import Path
from flink_app.local import _environment, configuration
from clickstream.settings import Lake, Settings, Source
from clickstream.settings import Dedup
source = Source(endpoint="http://127.0.0.1:1")
settings = Settings(lake=Lake(root="/nowhere"), source=source, dedup=Dedup(enabled=sys.argv[2] == "dedup"))
folder = Path(sys.argv[1])
options = configuration(settings, folder, parallelism=2, checkpoint_seconds=1)
environment = _environment(options, folder)
from flink_app.main import plan
plan(settings, environment)
print("\\nPLAN" + environment.get_execution_plan())
"""


@pytest.fixture(scope="module", params=["plain", "dedup"])
def operators(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("plan")
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(folder), request.param],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\nPLAN" in done.stdout, done.stderr[-3000:]
    return [node["type"] for node in json.loads(done.stdout.partition("\nPLAN")[2])["nodes"]]


def test_every_record_crosses_into_python_once_and_its_payload_once_more_for_the_click_id(
    operators: list[str], request: pytest.FixtureRequest
) -> None:
    is_dedup = request.node.callspec.params["operators"] == "dedup"

    crossings = [one for one in operators if "decode" in one or one == "click_id" or "PythonCalc" in one]
    assert crossings == [*(["click_id"] if is_dedup else []), "decode, place and name, last access"]


def test_the_operators_have_the_names_of_the_diagram(operators: list[str]) -> None:
    for name in ("records", "enriched", "rejected", "raw", "offers", "outcomes"):
        assert any(name in one for one in operators), f"{name} is none of {operators}"


BUG = """
import clickstream.batch
def decode_all(payloads):
    raise ZeroDivisionError("a bug of ours")
clickstream.batch.decode_all = decode_all
"""


def test_a_bug_in_our_code_stops_the_job_with_its_traceback(
    kinesalite: Kinesalite,
    redis_server: RedisServer,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BUG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    publish(kinesalite, stream, itertools.islice(Shoppers(1).records(), 10))

    with pytest.raises(JobFailed, match=r"Traceback(.*\n)+.*ZeroDivisionError: a bug of ours"):
        run_until_committed(_settings(kinesalite, redis_server, stream, tmp_path), tmp_path / "job", 10)
    assert not [*(tmp_path / "job").rglob("*.region")], "what was shared with Python is removed"


def test_a_setting_that_opens_nothing_stops_the_job_and_says_what_to_do(
    kinesalite: Kinesalite, redis_server: RedisServer, redis: Any, stream: str, tmp_path: Path
) -> None:
    settings = _settings(kinesalite, redis_server, stream, tmp_path, geo=Geo(mmdb="/no/such.mmdb"))

    with pytest.raises(JobFailed, match=r"no/such\.mmdb"):
        run_until_committed(settings, tmp_path / "job", 1)


def test_leaving_the_block_leaves_no_process(
    kinesalite: Kinesalite, redis_server: RedisServer, stream: str, tmp_path: Path
) -> None:
    with JobProcess(_settings(kinesalite, redis_server, stream, tmp_path), tmp_path / "job") as job:
        while not job.started:
            pass
        assert processes_with(str(tmp_path))

    assert not processes_with(str(tmp_path))


def _settings(
    kinesalite: Kinesalite, redis_server: RedisServer, stream: str, folder: Path, geo: Geo | None = None
) -> Settings:
    kinesalite.create_stream(f"{stream}-offers")
    return Settings(
        lake=Lake(root=(folder / "lake").as_uri()),
        source=Source(stream=stream, endpoint=kinesalite.endpoint),
        offers=Offers(stream=f"{stream}-offers"),
        redis=Redis(url=redis_server.url),
        geo=geo or Geo(mmdb=str(GEO)),
    )
