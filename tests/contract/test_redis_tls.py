"""The door to a Redis over TLS and with a password, tried on a real one."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clickstream.errors import Refused, Unavailable
from clickstream.place import Place
from connectors.redis_door import RedisDoor
from enrichment.shared import LastAccesses
from tests.servers import TlsRedis, make_certificate

OHIO = Place("US", "Ohio", "Columbus")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with TlsRedis(tmp_path_factory.mktemp("tls")) as running:
        yield running


def door(url: str, password: str | None) -> "closing[RedisDoor]":
    return closing(RedisDoor.connect(url, password, timeout=5))


def test_all_of_it_works_over_tls_with_the_password(server: TlsRedis) -> None:
    with door(f"{server.url}?ssl_ca_certs={server.ca}", server.password) as opened:
        opened.check()
        opened.write_names([("1", "Ada")])
        opened.write({"8.8.8.8": OHIO})
        opened.keep_newest(LastAccesses(["1"], ["2021-07-12 12:00:00.000000"], ["10"], ["Columbus, Ohio, US"]))

        assert opened.read(["8.8.8.8"], ["1"], take_on=False).places == {"8.8.8.8": OHIO}
        assert opened.user("1")["location"] == "Columbus, Ohio, US"


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_wrong_password_is_refused_before_anything_is_read_and_not_shown(
    server: TlsRedis, password: str | None
) -> None:
    with (
        door(f"{server.url}?ssl_ca_certs={server.ca}", password) as opened,
        pytest.raises(Refused, match="look at redis `password`") as refusal,
    ):
        opened.check()

    assert server.password not in str(refusal.value)
    assert "wrong" not in str(refusal.value).replace("WRONGPASS", "")


def test_a_certificate_nobody_vouches_for_is_refused(server: TlsRedis, tmp_path: Path) -> None:
    make_certificate(tmp_path / "other.pem", tmp_path / "other.key")
    for url in (server.url, f"{server.url}?ssl_ca_certs={tmp_path / 'other.pem'}"):
        with door(url, server.password) as opened:
            with pytest.raises(Refused, match="ssl_ca_certs"):
                opened.check()
            with pytest.raises(Unavailable):
                opened.read(["8.8.8.8"], [], take_on=False)


def test_a_certificate_for_another_host_is_refused(server: TlsRedis) -> None:
    url = f"{server.url}?ssl_ca_certs={server.ca}".replace("127.0.0.1", "localhost")

    with door(url, server.password) as opened, pytest.raises(Refused, match="certificate that is not accepted"):
        opened.check()


def test_without_tls_nothing_is_answered(server: TlsRedis) -> None:
    with door(server.url.replace("rediss", "redis"), server.password) as opened, pytest.raises(Unavailable):
        opened.read(["8.8.8.8"], [], take_on=False)
