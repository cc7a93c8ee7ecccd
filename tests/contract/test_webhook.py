"""What a webhook promises, tried on real HTTP and TLS servers."""

import json
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clickstream.errors import Refused, Unavailable
from connectors.webhook import MAX_ANSWER_BYTES, Webhook, is_public
from tests.servers import make_certificate
from tests.shop import BROKEN, Shop

OFFER = json.dumps({"offer_id": "7d9", "user_id": "top secret user", "price": 417.97}).encode()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder / "shop.pem", folder / "shop.key", "DNS:shop.example")
    return folder / "shop.pem"


@pytest.fixture
def tls_shop(certificate: Path) -> Iterator[Shop]:
    """A shop that is shop.example and can prove it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    shop = Shop()
    shop.server.socket = context.wrap_socket(shop.server.socket, server_side=True)
    with shop:
        yield shop


def webhook(url: str, **changed: Any) -> Webhook:
    options: dict[str, Any] = {"allow_private": True, "sleep": lambda _: None, "rng": Random(1)}
    return Webhook(url, **options | changed)


# Delivering


def test_an_offer_arrives_as_json_with_its_id_as_the_key(shop: Shop) -> None:
    assert webhook(shop.url).deliver("7d9", OFFER) == 200

    ((path, headers, body),) = shop.requests
    assert path == "/offers?key=hush"
    assert body == OFFER
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "7d9"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b"x" * (MAX_ANSWER_BYTES // 2)),
        ({"Transfer-Encoding": "chunked", "Content-Length": ""}, b"5\r\nhello\r\n0\r\n\r\n"),
        ({"Content-Encoding": "gzip"}, b"this is no gzip"),
        ({"Set-Cookie": "who=me"}, b"a"),
    ],
)
def test_one_connection_serves_all_offers(shop: Shop, headers: dict[str, str], body: bytes) -> None:
    shop.answers.extend([(200, headers, body)] * 20)
    door = webhook(shop.url)

    for number in range(20):
        assert door.deliver(str(number), OFFER) == 200

    assert shop.connections == 1
    assert [headers["Idempotency-Key"] for _, headers, _ in shop.requests] == [str(n) for n in range(20)]
    assert not any("Cookie" in headers for _, headers, _ in shop.requests)


def test_an_answer_without_end_is_not_read(shop: Shop) -> None:
    shop.answers.append((200, {"Content-Length": str(1 << 40)}, b"x" * (1 << 20)))
    door = webhook(shop.url)

    assert door.deliver("1", OFFER) == 200
    assert door.deliver("2", OFFER) == 200
    assert shop.connections == 2


def test_an_answer_that_trickles_is_left_after_a_while(shop: Shop) -> None:
    shop.answers.append((202, {"Content-Length": "100"}, b"so far"))
    began = time.monotonic()

    assert webhook(shop.url, timeout=0.3).deliver("1", OFFER) == 202
    assert time.monotonic() - began < 3


# Trouble


@pytest.mark.parametrize("answer", [(500, {}, b""), (503, {}, b""), (429, {}, b""), (408, {}, b""), BROKEN])
def test_trouble_that_passes_is_tried_again_with_the_same_key(shop: Shop, answer: Any) -> None:
    shop.answers.extend([answer] * 5)
    pauses: list[float] = []

    assert webhook(shop.url, sleep=pauses.append).deliver("7d9", OFFER) == 200

    assert [(headers["Idempotency-Key"], body) for _, headers, body in shop.requests] == [("7d9", OFFER)] * 6
    assert len(pauses) == 5
    assert all(0.05 <= pause <= 5 for pause in pauses)
    assert pauses[-1] > 4 * pauses[0]


@pytest.mark.parametrize(("retry_after", "pause"), [("7", 7), ("0", 0), ("86400", 60)])
def test_the_pause_is_what_retry_after_asks_for_up_to_a_minute(shop: Shop, retry_after: str, pause: float) -> None:
    shop.answers.append((429, {"Retry-After": retry_after}, b""))
    pauses: list[float] = []

    webhook(shop.url, sleep=pauses.append).deliver("7d9", OFFER)

    assert pauses == [pause]


def test_a_shop_that_stays_in_trouble_is_unavailable(shop: Shop) -> None:
    shop.answers.extend([(502, {}, OFFER)] * 10)
    pauses: list[float] = []

    with pytest.raises(Unavailable, match=r"in 10 attempts, the last answer was 502\. Next: ") as raised:
        webhook(shop.url, sleep=pauses.append).deliver("7d9", OFFER)

    assert len(shop.requests) == 10
    assert len(pauses) == 9
    assert_discreet(raised.value)


def test_a_shop_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        with pytest.raises(Unavailable, match="ConnectionError") as raised:
            webhook(f"http://127.0.0.1:{closed.getsockname()[1]}/offers?key=hush").deliver("7d9", OFFER)

    assert_discreet(raised.value)


def test_a_shop_that_does_not_answer_in_time_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        door = webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/offers", timeout=0.05, attempts=2)

        with pytest.raises(Unavailable, match="ReadTimeout"):
            door.deliver("7d9", OFFER)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 413, 422])
def test_a_status_about_the_offer_is_returned_and_the_next_one_goes_on(shop: Shop, status: int) -> None:
    shop.answers.append((status, {}, b"no"))
    door = webhook(shop.url)

    assert door.deliver("1", OFFER) == status
    assert door.deliver("2", OFFER) == 200
    assert len(shop.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(shop: Shop, status: int) -> None:
    shop.answers.append((status, {"Location": shop.url}, b""))

    with pytest.raises(Refused, match=f"answered {status}, a redirect") as raised:
        webhook(shop.url).deliver("7d9", OFFER)

    assert len(shop.requests) == 1
    assert_discreet(raised.value)


def assert_discreet(error: Exception) -> None:
    """Neither the offer nor the secret part of the address is in the message."""
    for secret in ("hush", "offers?", "top secret user", "417.97"):
        assert secret not in str(error)


def test_nothing_is_logged_of_an_offer(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.answers.extend([(500, {}, OFFER), BROKEN, (400, {}, OFFER)])

    with caplog.at_level(0):
        webhook(shop.url).deliver("7d9", OFFER)

    assert "top secret user" not in caplog.text


def test_no_proxy_is_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert webhook(shop.url).deliver("7d9", OFFER) == 200


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/offers",
        "shop.example/offers",
        "ftp://shop.example/offers",
        "file:///etc/passwd",
        "https:///offers",
        "https://shop.example:port/offers",
        "https://[::1/offers",
        "",
    ],
)
def test_what_is_no_https_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(Refused, match=r"A webhook is an address like https://shop\.example/offers, not "):
        Webhook(url, resolve=lambda *_: ["93.184.215.14"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%lo",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_an_address_that_is_not_public_is_refused_at_once(address: str) -> None:
    with pytest.raises(Refused, match=r"not a public address\. Next: .*--allow-private"):
        Webhook("https://shop.example/offers", resolve=lambda *_: [address])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_an_address_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://0/", "https://127.1/"]
)
def test_a_loopback_address_is_refused_however_it_is_spelled(url: str) -> None:
    with pytest.raises(Refused, match="not a public address"):
        Webhook(url)


def test_one_private_address_among_public_ones_is_one_too_many() -> None:
    with pytest.raises(Refused, match=r"is at 10\.0\.0\.1"):
        Webhook("https://shop.example", resolve=lambda *_: ["93.184.215.14", "10.0.0.1"])


def test_a_name_that_is_private_only_the_second_time_is_not_connected_to(shop: Shop) -> None:
    addresses = deque([["93.184.215.14"], ["127.0.0.1"]])
    door = Webhook(f"https://shop.example:{shop.port}/offers?key=hush", resolve=lambda *_: addresses.popleft())

    with pytest.raises(Refused, match=r"is at 127\.0\.0\.1, which is not a public address") as raised:
        door.deliver("7d9", OFFER)

    assert shop.connections == 0
    assert_discreet(raised.value)


def test_the_connection_goes_to_the_address_that_was_looked_at(tls_shop: Shop, certificate: Path) -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first

    door = Webhook(
        f"https://shop.example:{tls_shop.port}/offers", ca=str(certificate), resolve=resolve, is_allowed=lambda _: True
    )

    assert [door.deliver(str(number), OFFER) for number in range(3)] == [200] * 3

    assert asked == [("shop.example", tls_shop.port)] * 2  # when it was made, and for its one connection
    assert tls_shop.connections == 1
    assert tls_shop.requests[0][1]["Host"] == f"shop.example:{tls_shop.port}"


def test_a_certificate_for_another_name_is_refused(tls_shop: Shop, certificate: Path) -> None:
    door = Webhook(
        f"https://other.example:{tls_shop.port}/offers",
        ca=str(certificate),
        resolve=lambda *_: ["127.0.0.1"],
        is_allowed=lambda _: True,
    )

    with pytest.raises(Refused, match="certificate of the webhook"):
        door.deliver("7d9", OFFER)

    assert tls_shop.requests == []


def test_a_certificate_nobody_vouches_for_is_refused(tls_shop: Shop) -> None:
    door = webhook(f"https://127.0.0.1:{tls_shop.port}/offers")

    with pytest.raises(Refused, match="certificate of the webhook"):
        door.deliver("7d9", OFFER)


def test_a_name_nobody_knows_is_unavailable() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    door = Webhook("https://shop.example/offers", resolve=resolve, sleep=lambda _: None)

    with pytest.raises(Unavailable, match=r"https://shop\.example did not take an offer"):
        door.deliver("7d9", OFFER)


def test_an_address_shows_no_more_than_its_host() -> None:
    door = webhook("https://me:hush@shop.example:8443/offers/hush?key=hush")

    assert door.host == "https://shop.example:8443"
    assert "hush" not in repr(door)
