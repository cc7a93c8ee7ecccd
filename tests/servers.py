"""Servers that only tests need: a MySQL and an S3, private and on loopback like those of `cli.servers`."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pymysql
import redis
from botocore.exceptions import BotoCoreError
from pymysql.connections import Connection

from cli.servers import LOOPBACK, PROJECT, REGION, Kinesalite, Localemu, RedisServer, Server, aws_client, program
from clickstream.errors import Refused

DEBIAN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where daemons are, which are not on everyone's PATH


class MariaDb(Server):
    """A MariaDB with an empty database `clickstream` and an `app` user who may do anything in it, and nothing else.

    It offers TLS, with a certificate for 127.0.0.1 that is its own authority (`ca`), unless made with `tls=False`.
    Its tables survive a `stop` and `start`. MariaDB's installer is a shell script that wants a folder without spaces.
    """

    title = "MariaDB"
    user: ClassVar[str] = "app"
    database: ClassVar[str] = "clickstream"

    def __init__(self, folder: Path, *, tls: bool = True, **options: Any) -> None:
        super().__init__(folder, **options)
        self.tls = tls
        self.password = secrets.token_urlsafe(12)
        self._root_password = secrets.token_urlsafe(12)

    @property
    def url(self) -> str:
        """Where clients find it, without the password."""
        return f"mysql://{self.user}@{LOOPBACK}:{self.port}/{self.database}"

    @property
    def ca(self) -> Path:
        """The certificate that vouches for this server."""
        return self.folder / "server.pem"

    def execute(self, *statements: str) -> None:
        """Run statements as root, in the order given."""
        with self._connected("root", self._root_password) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def prepare(self) -> None:
        if not self._data.is_dir():
            install = program("mariadb-install-db", "apt-get install mariadb-server", *DEBIAN)
            _run([install, "--no-defaults", *self._engine(), "--skip-test-db"], self.folder)
        if self.tls and not self.ca.is_file():
            make_certificate(self.ca, self._key)
        self._init.touch(mode=0o600)
        self._init.write_text(
            f"CREATE DATABASE IF NOT EXISTS {self.database};\n"
            f"CREATE OR REPLACE USER root@{LOOPBACK} IDENTIFIED BY '{self._root_password}';\n"
            f"GRANT ALL ON *.* TO root@{LOOPBACK} WITH GRANT OPTION;\n"
            f"CREATE OR REPLACE USER {self.user}@{LOOPBACK} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON {self.database}.* TO {self.user}@{LOOPBACK};\n"
        )

    def command(self) -> Sequence[str | Path]:
        return [
            program("mariadbd", "apt-get install mariadb-server", *DEBIAN),
            "--no-defaults",
            *self._engine(),
            "--socket=server.sock",  # within the data folder: a socket's whole path has room for 107 bytes
            f"--pid-file={self.folder / 'server.pid'}",
            f"--init-file={self._init}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",  # no fsync a commit: only the machine's own crash would lose anything
            *([f"--ssl-cert={self.ca}", f"--ssl-key={self._key}"] if self.tls else []),
        ]

    def answers(self) -> bool:
        try:
            with self._connected(self.user, self.password) as connection:
                connection.ping(reconnect=False)
        except pymysql.err.OperationalError:  # another's server does not know our password
            return False
        return True

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _init(self) -> Path:
        return self.folder / "init.sql"

    @property
    def _key(self) -> Path:
        return self.folder / "server.key"

    def _engine(self) -> list[str]:
        """Return the settings that the installer and the server must agree on; the sizes are to start quickly.

        Started by root it stays root: user mysql could not enter pytest's folders, which are for their owner alone.
        """
        return [
            f"--datadir={self._data}",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]

    @contextmanager
    def _connected(self, user: str, password: str) -> Iterator["Connection[Any]"]:
        connection = pymysql.connect(
            host=LOOPBACK, port=self.port, user=user, password=password, connect_timeout=2, autocommit=True
        )
        with connection:
            yield connection


class TlsRedis(RedisServer):
    """A Redis that speaks nothing but TLS and wants a password, with a certificate that is its own authority (`ca`).

    It is Debian's: the one in the Python package was built without TLS.
    """

    title = "Redis with TLS"

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.password = secrets.token_urlsafe(12)

    @property
    def url(self) -> str:
        """Where clients find it, without the password and without saying whom to trust."""
        return f"rediss://{LOOPBACK}:{self.port}/0"

    @property
    def ca(self) -> Path:
        """The certificate that vouches for this server."""
        return self.folder / "server.pem"

    def client(self, **options: Any) -> "redis.Redis":
        return redis.Redis(LOOPBACK, self.port, password=self.password, ssl=True, ssl_ca_certs=str(self.ca), **options)

    def prepare(self) -> None:
        if not self.ca.is_file():
            make_certificate(self.ca, self.folder / "server.key")
        settings = self.folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(f"requirepass {self.password}\n")  # on the command line everybody would see it

    def command(self) -> Sequence[str | Path]:
        options = {
            "bind": LOOPBACK,
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(self.ca),
            "tls-key-file": str(self.folder / "server.key"),
            "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": "no",
            "dir": str(self.folder),
            "save": "",
        }
        server = shutil.which("redis-server") or program("redis-server", "apt-get install redis-server", *DEBIAN)
        return [
            server,
            self.folder / "redis.conf",
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]


class KinesisLocal(Kinesalite):
    """A Kinesis that has UpdateShardCount, which kinesalite has not, from the npm package kinesis-local.

    It takes about a thousand records a second, and forgets its streams when it stops. The port for TLS that it wants
    besides is not opened.
    """

    title = "kinesis-local"

    # It cannot be told to listen on loopback only, nor without TLS.
    _SCRIPT: ClassVar[str] = """
        const {module, port, host} = JSON.parse(process.argv[1])
        const server = require("net").Server.prototype
        const listen = server.listen
        server.listen = function (wanted, done) {
            if (wanted === port)
                return listen.call(this, port, host, () => { console.log(`listening on ${host}:${port}`); done() })
            this.address = () => ({address: host, family: "IPv4", port: wanted})
            process.nextTick(done)
            return this
        }
        require(module)
    """

    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_REGION": REGION,
            "KINESIS_MOCK_PLAIN_PORT": str(self.port),
            "KINESIS_MOCK_TLS_PORT": "1",
            "KINESIS_MOCK_CERT_PATH": str(self._module() / "server.json"),
            "SHARD_LIMIT": str(self.shard_limit),
        }


class S3Server(Server):
    """An S3 in memory, by ministack; it knows the AWS services around S3 too."""

    title = "ministack"

    @property
    def endpoint(self) -> str:
        """Where clients find it, as `http://…`; they address buckets by path."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self, service: str = "s3", **config: Any) -> Any:
        """Make a boto3 client; the caller closes it."""
        return aws_client(
            service, self.endpoint, **({"s3": {"addressing_style": "path"}} if service == "s3" else {}), **config
        )

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "ministack"]

    def environment(self) -> Mapping[str, str]:
        return {
            "BIND_HOST": LOOPBACK,
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",  # a listener on all interfaces
            "SFTP_ENABLED": "0",  # another
            "PERSIST_STATE": "0",
            "TMPDIR": str(self.folder),  # it leaves a file with its process id there
        }

    def answers(self) -> bool:
        if f"Running on {self.endpoint}" not in self.log.read_text(errors="replace"):  # else it may be another's
            return False
        client = self.client()
        try:
            client.list_buckets()
        except BotoCoreError:
            return False
        finally:
            client.close()
        return True


class FirehoseServer(Localemu):
    """A Kinesis, a Firehose and an S3 in memory, by localemu, mended by `localemu_firehose.py` beside this file."""

    def command(self) -> Sequence[str | Path]:
        python, *_ = super().command()
        return [python, "-P", "-u", Path(__file__).with_name("localemu_firehose.py"), str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(PROJECT)}


def make_certificate(certificate: Path, key: Path, host: str = f"IP:{LOOPBACK}") -> None:
    """Make a key and a certificate that vouches for itself, for one host, for a day."""
    openssl = program("openssl", "apt-get install openssl")
    _run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=clickstream tests", "-addext", f"subjectAltName={host}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        certificate.parent,
    )


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(
            f"{Path(command[0]).name} failed with code {done.returncode}. Next: read what it said\n"
            f"{done.stdout}{done.stderr}"
        )
