"""The private servers: each alone on its port, on loopback only, and gone when it should be."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.servers import PROJECT, Kinesalite, Localemu, RedisServer, Server, free_port, program
from cli.setup import set_up_front
from clickstream.errors import Refused, Unavailable
from tests.servers import KinesisLocal, MariaDb, S3Server

KINDS: list[type[Server]] = [RedisServer, Kinesalite, Localemu, KinesisLocal, MariaDb, S3Server]
every_kind = pytest.mark.parametrize("kind", KINDS)


class Script(Server):
    """A server that does as it is told, and never answers."""

    title = "the script"

    def __init__(self, folder: Path, script: str, **options: Any) -> None:
        super().__init__(folder, **options)
        self.script = script

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-c", self.script]

    def answers(self) -> bool:
        return False


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead, and waiting for somebody to hear of it


def listens_on(pid: int) -> set[str]:
    """The addresses and ports, in the kernel's hexadecimal, on which a process takes connections."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    entries = [line.split() for line in tables.splitlines() if "local_address" not in line]
    return {entry[1] for entry in entries if entry[3] == "0A" and f"socket:[{entry[9]}]" in sockets}


# All of them


@every_kind
def test_a_second_one_that_finds_its_port_taken_listens_on_another(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "one") as one:
        ports = iter([one.port, free_port()])

        with kind(tmp_path / "two", ports=lambda: next(ports)) as two:
            for server in (one, two):
                assert server.answers()
                assert listens_on(server.pid) == {f"0100007F:{server.port:04X}"}
            assert one.port != two.port
            assert one.pid != two.pid


@every_kind
def test_once_stopped_no_process_and_no_listener_is_left(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "server") as server:
        pid = server.pid
        assert is_running(pid)
        assert os.getpgid(pid) == pid != os.getpgrp()  # Ctrl-C in a terminal goes to our group only

    assert not is_running(pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


@every_kind
def test_when_its_parent_is_killed_it_dies_too(kind: type[Server], tmp_path: Path) -> None:
    script = (
        f"import time; from pathlib import Path; from {kind.__module__} import {kind.__name__} as Kind\n"
        f"with Kind(Path({str(tmp_path / 'server')!r})) as server: print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    assert is_running(child)

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        assert not is_running(child)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise


# Trouble


def test_one_that_ends_instead_of_starting_is_refused_with_its_last_words(tmp_path: Path) -> None:
    server = Script(tmp_path / "server", "print('line 3 of my settings makes no sense'); raise SystemExit(3)")

    with pytest.raises(Refused, match=r"(?s)the script ended with code 3.*Next: read .*server\.log.*makes no sense"):
        server.start()


def test_one_that_never_answers_is_unavailable_with_its_last_words_and_stopped(tmp_path: Path) -> None:
    said = "import os, time; print(os.getpid(), 'is thinking', flush=True); time.sleep(60)"
    server = Script(tmp_path / "server", said, patience=2)

    with pytest.raises(Unavailable, match=r"(?s)did not answer .* within 2 seconds. Next: try again.*is thinking"):
        server.start()

    assert not is_running(int(server.log.read_text().split()[0]))


def test_one_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.servers.GRACE", 0.2)
    with RedisServer(tmp_path / "server") as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)

    assert not is_running(pid)


def test_where_every_port_is_taken_it_is_refused(redis_server: RedisServer, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "server", ports=lambda: redis_server.port)

    with pytest.raises(Refused, match=rf"found port {redis_server.port} .* taken.*Next: see who has it"):
        server.start()


def test_a_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "server"), pytest.raises(Refused, match="another run has its data open"):
        RedisServer(tmp_path / "server").start()

    with RedisServer(tmp_path / "server") as later:
        assert later.answers()


def test_a_program_that_is_not_installed_is_refused_with_the_command_that_installs_it() -> None:
    with pytest.raises(Refused, match=r"no-such-program is not installed here\. Next: apt-get install no-such-package"):
        program("no-such-program", "apt-get install no-such-package")


def test_node_modules_that_are_missing_are_refused_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.servers.PROJECT", tmp_path)

    with pytest.raises(Refused, match=r"kinesalite is not installed.*Next: cd .* npm ci"):
        Kinesalite(tmp_path / "server").start()


def test_localemu_that_is_missing_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Localemu, "python", tmp_path / "bin" / "python")

    with pytest.raises(Refused, match=r"localemu is not installed.*Next: clickstream setup --front"):
        Localemu(tmp_path / "server").start()


def test_without_a_newer_python_the_front_door_is_refused_with_what_provides_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Localemu, "python", tmp_path / "localemu" / "bin" / "python")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path))

    with pytest.raises(Refused, match=r"needs Python 3\.12 or 3\.13 .* Next: apt-get install python3\.12"):
        set_up_front()


# Each of them


@pytest.mark.parametrize("durable", [False, True])
def test_redis_remembers_over_a_restart_only_if_it_is_durable(tmp_path: Path, durable: bool) -> None:
    with RedisServer(tmp_path / "a folder", durable=durable) as server:
        port = server.port
        with server.client() as client:
            client.set("key", "value")

        server.stop()
        server.start()

        assert server.port == port
        with server.client(decode_responses=True) as client:
            assert client.get("key") == ("value" if durable else None)


def test_a_durable_redis_that_is_killed_remembers_too(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "server", durable=True) as server:
        with server.client() as client:
            client.set("key", "value")
        os.kill(server.pid, signal.SIGKILL)

    with RedisServer(tmp_path / "server", durable=True) as server, server.client() as client:
        assert client.get("key") == b"value"


@pytest.mark.parametrize("durable", [False, True])
def test_kinesalite_remembers_over_a_restart_only_if_it_is_durable(tmp_path: Path, durable: bool) -> None:
    with Kinesalite(tmp_path / "a folder", durable=durable) as server:
        server.create_stream("clicks", shards=3)

        server.stop()
        server.start()

        assert server.client().list_streams()["StreamNames"] == (["clicks"] if durable else [])


def test_a_stream_is_ready_when_it_was_created_and_creating_it_again_changes_nothing(kinesalite: Kinesalite) -> None:
    kinesalite.create_stream("created-twice", shards=3)
    client = kinesalite.client()
    client.put_record(StreamName="created-twice", PartitionKey="35", Data=b"payload")

    kinesalite.create_stream("created-twice", shards=1)

    assert len(client.list_shards(StreamName="created-twice")["Shards"]) == 3


def test_more_shards_than_kinesalite_gives_are_refused(kinesalite: Kinesalite) -> None:
    with pytest.raises(Refused, match=r"refused CreateStream too-many with 2000 shards.*LimitExceeded.*Next:"):
        kinesalite.create_stream("too-many", shards=2000)


def test_the_clients_ignore_a_persons_aws_profile_and_proxy(
    kinesalite: Kinesalite, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody-elses")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    kinesalite.client().list_streams()
    s3_server.client().list_buckets()


def test_the_s3_server_keeps_objects_and_takes_uploads_in_parts(s3_server: S3Server) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket="parts")
    upload = client.create_multipart_upload(Bucket="parts", Key="year=2026/part")["UploadId"]
    part = client.upload_part(Bucket="parts", Key="year=2026/part", UploadId=upload, PartNumber=1, Body=b"rows")

    assert "Contents" not in client.list_objects_v2(Bucket="parts")
    client.complete_multipart_upload(
        Bucket="parts",
        Key="year=2026/part",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )

    assert client.get_object(Bucket="parts", Key="year=2026/part")["Body"].read() == b"rows"


def test_mariadb_keeps_its_tables_over_a_restart(tmp_path: Path) -> None:
    with MariaDb(tmp_path / "server") as server:
        server.execute("CREATE TABLE clickstream.kept (id INT)")

        server.stop()
        server.start()

        server.execute("INSERT INTO clickstream.kept VALUES (1)")


def test_the_redis_fixture_is_empty_each_time(redis: Any) -> None:
    assert redis.dbsize() == 0
    redis.set("left", "over")


def test_the_redis_fixture_is_empty_the_next_time(redis: Any) -> None:
    assert redis.dbsize() == 0
