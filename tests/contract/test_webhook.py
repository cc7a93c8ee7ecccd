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
from connectors.webhook import MAX_ANSWER_BYTES, REDIRECTS, Home, Webhook, is_public
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
    options: dict[str, Any] = {"home": Home.of(["127.0.0.0/8"]), "sleep": lambda _: None, "rng": Random(1)}
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


# Redirects


@pytest.fixture
def other() -> Iterator[Shop]:
    with Shop() as other:
        yield other


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_offer_is_followed(shop: Shop, other: Shop, status: int) -> None:
    shop.answers.append((status, {"Location": other.url}, b"over there"))
    door = webhook(shop.url)

    assert door.deliver("7d9", OFFER) == 200
    assert door.deliver("7da", OFFER) == 200

    assert [len(shop.requests), len(other.requests)] == [2, 1]  # and only for the one offer
    ((path, headers, body),) = other.requests
    assert (path, headers["Idempotency-Key"], body) == ("/offers?key=hush", "7d9", OFFER)
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305])
def test_a_redirect_that_may_lose_the_offer_is_refused(shop: Shop, other: Shop, status: int) -> None:
    shop.answers.append((status, {"Location": other.url}, b""))

    with pytest.raises(Refused, match=f"answered {status}, a redirect that does not ask") as raised:
        webhook(shop.url).deliver("7d9", OFFER)

    assert [len(shop.requests), len(other.requests)] == [1, 0]
    assert_discreet(raised.value)


@pytest.mark.parametrize(("hops", "taken"), [(REDIRECTS, True), (REDIRECTS + 1, False)])
def test_so_many_redirects_are_followed_and_no_more(shop: Shop, hops: int, taken: bool) -> None:
    shop.answers.extend([(307, {"Location": "/offers?key=hush"}, b"")] * hops)
    door = webhook(shop.url)

    if taken:
        assert door.deliver("7d9", OFFER) == 200
    else:
        with pytest.raises(Refused, match=f"redirected {hops} times in a row") as raised:
            door.deliver("7d9", OFFER)
        assert_discreet(raised.value)
    assert len(shop.requests) == REDIRECTS + 1


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "ftp://127.0.0.1/", "https://[::1", "http://x:y/"])
def test_a_redirect_to_nowhere_is_refused(shop: Shop, location: str) -> None:
    shop.answers.append((307, {"Location": location}, b""))

    with pytest.raises(Refused, match="redirect") as raised:
        webhook(shop.url).deliver("7d9", OFFER)

    assert len(shop.requests) == 1
    assert_discreet(raised.value)


def test_the_answer_of_a_redirect_is_not_read_to_its_end(shop: Shop, other: Shop) -> None:
    shop.answers.append((307, {"Location": other.url, "Content-Length": str(1 << 40)}, b"x" * (1 << 20)))

    assert webhook(shop.url, attempts=1).deliver("7d9", OFFER) == 200


def test_trouble_after_a_redirect_begins_again_at_the_first(shop: Shop, other: Shop) -> None:
    shop.answers.extend([(308, {"Location": other.url}, b"")] * 2)
    other.answers.append((503, {"Retry-After": "3"}, b""))
    pauses: list[float] = []

    assert webhook(shop.url, sleep=pauses.append).deliver("7d9", OFFER) == 200

    assert pauses == [3]
    assert [len(shop.requests), len(other.requests)] == [2, 2]


def test_user_and_password_go_to_no_other_server(shop: Shop, other: Shop) -> None:
    shop.answers.append((307, {"Location": "/elsewhere", "Set-Cookie": "who=me"}, b""))
    shop.answers.append((307, {"Location": other.url.replace("://", "://their:own@")}, b""))

    assert webhook(shop.url.replace("://", "://me:hush@")).deliver("7d9", OFFER) == 200

    assert [path for path, _, _ in shop.requests] == ["/offers?key=hush", "/elsewhere"]
    assert [headers["Authorization"] for _, headers, _ in shop.requests] == ["Basic bWU6aHVzaA=="] * 2
    ((_, headers, _),) = other.requests
    assert not {"Authorization", "Cookie", "Referer"} & set(headers)


def test_a_public_webhook_may_not_redirect_to_a_private_address(tls_shop: Shop, other: Shop, certificate: Path) -> None:
    at = {"shop.example": ["127.0.0.1"], "inside.example": ["93.184.215.14", "10.0.0.7"]}
    tls_shop.answers.append((307, {"Location": "https://inside.example/admin?key=hush"}, b""))
    tls_shop.answers.append((307, {"Location": "https://169.254.169.254/latest/api/token"}, b""))
    tls_shop.answers.append((307, {"Location": other.url}, b""))
    door = Webhook(
        f"https://shop.example:{tls_shop.port}/offers?key=hush",
        ca=str(certificate),
        resolve=lambda host, _: at.get(host, [host]),
        is_allowed=lambda address: is_public(address) or (address == "127.0.0.1" and not other.requests),
    )

    for why in (
        r"https://inside\.example:443, to which the webhook at https://shop\.example:\d+ redirects, is at 10\.0\.0\.7",
        r"https://169\.254\.169\.254:443, to which .* redirects, is at 169\.254\.169\.254, which is not a public",
        r"http://127\.0\.0\.1:\d+, to which .* redirects, is http://, and what travels in clear",
    ):
        with pytest.raises(Refused, match=why) as raised:
            door.deliver("7d9", OFFER)
        assert_discreet(raised.value)

    assert len(tls_shop.requests) == 3
    assert other.connections == 0


def test_a_redirect_whose_name_becomes_private_is_not_connected_to(tls_shop: Shop, certificate: Path) -> None:
    """Each connection goes to an address that was looked at for it, whatever the name says the next time."""
    answers = {"shop.example": deque([["127.0.0.1"]] * 3), "next.example": deque([["127.0.0.1"], ["10.0.0.7"]])}
    tls_shop.answers.extend([(307, {"Location": f"https://next.example:{tls_shop.port}/"}, b"")] * 2)
    door = Webhook(
        f"https://shop.example:{tls_shop.port}/offers",
        ca=str(certificate),
        resolve=lambda host, _: answers[host].popleft(),
        is_allowed=lambda address: address == "127.0.0.1",
    )

    with pytest.raises(Refused, match=r"https://next.* has a certificate"):  # it is looked at after the address
        door.deliver("7d9", OFFER)
    with pytest.raises(Refused, match=r"is at 10\.0\.0\.7"):
        door.deliver("7d9", OFFER)

    assert [headers["Host"] for _, headers, _ in tls_shop.requests] == [f"shop.example:{tls_shop.port}"] * 2


@pytest.mark.parametrize("allowed", ["shop.inside", "127.0.0.1", "127.0.0.0/8"])
def test_a_redirect_to_what_is_allowed_is_followed_from_https_to_http(
    tls_shop: Shop, other: Shop, certificate: Path, allowed: str
) -> None:
    tls_shop.answers.append((308, {"Location": f"http://shop.inside:{other.port}/offers"}, b""))
    door = Webhook(
        f"https://shop.example:{tls_shop.port}/offers",
        Home.of([allowed]),
        ca=str(certificate),
        resolve=lambda *_: ["127.0.0.1"],
        is_allowed=lambda _: True,
    )

    assert door.deliver("7d9", OFFER) == 200

    ((_, headers, body),) = other.requests
    assert (headers["Host"], body) == (f"shop.inside:{other.port}", OFFER)


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
    ("allowed", "host", "address", "at_home"),
    [
        ("shop.inside", "shop.inside", "10.1.2.3", True),
        ("Shop.Inside.", "shop.inside", "127.0.0.1", True),
        ("shop.inside", "SHOP.inside", "fd12::1", True),
        ("shop.inside", "shop.inside", "169.254.169.254", False),
        ("shop.inside", "shop.inside", "::ffff:169.254.169.254", False),
        ("shop.inside", "shop.inside", "64:ff9b::169.254.169.254", False),
        ("shop.inside", "shop.inside", "fe80::1%eth0", False),
        ("shop.inside", "shop.inside", "fd00:ec2::254", False),
        ("shop.inside", "other.inside", "10.1.2.3", False),
        ("shop.inside", "not.shop.inside", "10.1.2.3", False),
        ("10.1.0.0/16", "any.name", "10.1.2.3", True),
        ("10.1.2.3", "any.name", "10.1.2.3", True),
        ("10.1.2.3/16", "any.name", "::ffff:10.1.9.9", True),
        ("10.1.0.0/16", "any.name", "10.2.0.1", False),
        ("fd12::/16", "any.name", "fd12::1", True),
        ("fd12::/16", "any.name", "10.1.2.3", False),
        ("169.254.0.0/16", "any.name", "169.254.169.254", True),
        ("", "any.name", "10.1.2.3", False),
    ],
)
def test_home_is_what_is_named(allowed: str, host: str, address: str, at_home: bool) -> None:
    assert Home.of(["unrelated.inside", allowed]).has(host, address) == at_home


@pytest.mark.parametrize("allowed", ["10.0.0.0/33", "https://shop.inside", "shop.inside:443", "*.inside", "yes please"])
def test_what_is_neither_a_name_nor_a_network_is_refused(allowed: str) -> None:
    with pytest.raises(Refused, match="neither a host's name nor a network"):
        Home.of([allowed])


def test_http_to_an_address_on_the_internet_is_refused_at_once() -> None:
    with pytest.raises(Refused, match=r"http://shop\.example:80 is http://|is http://, and what travels in clear"):
        Webhook("http://shop.example/offers", Home.of(["10.0.0.0/8"]), resolve=lambda *_: ["93.184.215.14"])


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

    with pytest.raises(Refused, match="has a certificate that is not to be trusted"):
        door.deliver("7d9", OFFER)

    assert tls_shop.requests == []


def test_a_certificate_nobody_vouches_for_is_refused(tls_shop: Shop) -> None:
    door = webhook(f"https://127.0.0.1:{tls_shop.port}/offers")

    with pytest.raises(Refused, match="has a certificate that is not to be trusted"):
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
