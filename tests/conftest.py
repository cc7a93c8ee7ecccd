"""Real servers for the tests that ask for them, each started once, and emptied where a test needs it empty."""

# ruff: noqa: PLC0415  # tests in memory do not wait half a second for boto3 and redis to be imported

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from cli.servers import Kinesalite, RedisServer
    from tests.servers import MariaDb, S3Server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and all that we start would be as deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ", "5000")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RedisServer"]:
    from cli.servers import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def kinesalite(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Kinesalite"]:
    from cli.servers import Kinesalite

    with Kinesalite(tmp_path_factory.mktemp("kinesalite"), shard_limit=1000) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator["MariaDb"]:
    from tests.servers import MariaDb

    with MariaDb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Server"]:
    from tests.servers import S3Server

    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def lambda_zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Path"]:
    """The zips of all Lambdas, by name."""
    from deploy import package

    folder = tmp_path_factory.mktemp("lambdas")
    for name in package.LAMBDAS:
        package.build_lambda(name, folder / f"{name}.zip")
    return {name: folder / f"{name}.zip" for name in package.LAMBDAS}


@pytest.fixture
def redis(redis_server: "RedisServer") -> Iterator["Redis"]:
    """A client of a Redis that is empty."""
    with redis_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def stream(kinesalite: "Kinesalite") -> str:
    """The name of a new stream, empty, with two shards."""
    name = f"stream-{uuid4().hex[:8]}"
    kinesalite.create_stream(name, shards=2)
    return name
