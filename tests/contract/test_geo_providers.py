"""What every geo provider promises, tried in memory, on MaxMind's file and on a real HTTP server."""

import gzip
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from random import Random
from typing import Any

import maxminddb
import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import BaseAdapter

from clickstream.errors import ClickstreamError, Refused, Unavailable
from clickstream.place import GeoProvider, Place, public_address
from connectors.breaker import CircuitBreaker, State
from connectors.geo_ipinfo import MAX_ANSWER_BYTES, IpInfo, keep_alive
from connectors.geo_mmdb import Mmdb
from connectors.testing import InMemoryGeo
from tests import oracle

TOKEN = "t0ken"  # the server's
COUNTRY_ONLY, FULL, OVER_IPV6 = "8.8.8.8", "18.9.22.69", "2607:f140::1"
NOBODY_KNOWS = "3ffe::1"  # public, and given back in 2006
PLACES = {
    COUNTRY_ONLY: Place("US"),
    FULL: Place("US", "Massachusetts", "Cambridge"),
    OVER_IPV6: Place("US", "California", "Berkeley"),
    "81.2.69.142": Place("GB", "England", "London"),
    "111.33.64.227": Place("CN"),
    "2001:250::1": Place("CN"),
}


# MaxMind's file, and small ones of our own


@pytest.fixture(scope="session")
def geo_database() -> Path:
    root = Path(__file__).resolve().parents[2]
    path = Path(os.environ.get("CLICKSTREAM_MMDB", root / ".data/geo/GeoLite2-City.mmdb"))
    if not path.is_file():
        pytest.fail(f"there is no geo database at {path}: run `make setup`, or set CLICKSTREAM_MMDB to one")
    return path


def mmdb(records: Mapping[str, object], *, kind: str = "Test-City", ip_version: int = 6) -> bytes:
    """Write a database, https://maxmind.github.io/MaxMind-DB/."""
    data = b""
    nodes: list[list[int | None]] = [[None, None]]
    leaves: list[tuple[int, int, int]] = []
    for text, record in records.items():
        network = ip_network(text)
        bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
        if isinstance(network, IPv4Network) and ip_version == 6:
            bits = "0" * 96 + bits
        node = 0
        for bit in map(int, bits[:-1]):
            following = nodes[node][bit]
            if following is None:
                following = nodes[node][bit] = len(nodes)
                nodes.append([None, None])
            node = following
        leaves.append((node, int(bits[-1]), len(data)))
        data += _encoded(record)
    for node, bit, offset in leaves:
        nodes[node][bit] = len(nodes) + 16 + offset
    tree = b"".join((len(nodes) if to is None else to).to_bytes(3, "big") for node in nodes for to in node)
    about = {
        "binary_format_major_version": _whole(2, bits=16),
        "binary_format_minor_version": _whole(0, bits=16),
        "build_epoch": _whole(1_700_000_000, bits=64),
        "database_type": kind,
        "description": {"en": "made for a test"},
        "ip_version": _whole(ip_version, bits=16),
        "languages": ["en"],
        "node_count": _whole(len(nodes), bits=32),
        "record_size": _whole(24, bits=16),
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encoded(about)


def _encoded(value: object) -> bytes:
    match value:
        case dict():
            return _head(7, len(value)) + b"".join(_encoded(part) for pair in value.items() for part in pair)
        case list():
            return _head(11, len(value)) + b"".join(map(_encoded, value))
        case str():
            return _head(2, len(value.encode())) + value.encode()
        case int():
            return _whole(value, bits=32)
        case bytes():
            return value
    raise TypeError(value)


def _whole(value: int, *, bits: int) -> bytes:
    kind = {16: 5, 32: 6, 64: 9}[bits]
    return _head(kind, bits // 8) + value.to_bytes(bits // 8, "big")


def _head(kind: int, size: int) -> bytes:
    lengths = (size, b"") if size < 29 else (29, bytes([size - 29]))
    control = bytes([lengths[0], kind - 7]) if kind > 7 else bytes([kind << 5 | lengths[0]])
    return control + lengths[1]


def city(place: Place) -> dict[str, object]:
    record: dict[str, object] = {"country": {"iso_code": place.country, "names": {"en": "a country", "de": "ein Land"}}}
    if place.region:
        record["subdivisions"] = [{"names": {"de": "x", "en": place.region}}, {"names": {"en": "a smaller one"}}]
    if place.city:
        record["city"] = {"names": {"de": "x", "en": place.city}}
    return record


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(records: Mapping[str, object], **how: Any) -> Path:
        path = tmp_path / "places.mmdb"
        path.write_bytes(mmdb(records, **how))
        return path

    return write


# A real HTTP server in ipinfo.io's place


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    addresses: list[str]


class Api:
    """Knows PLACES, takes batches from those with a token, and first does what it was told to."""

    def __init__(self) -> None:
        self.entries = {address: entry(address, place) for address, place in PLACES.items()}
        self.told: deque[Callable[[BaseHTTPRequestHandler], None]] = deque()
        self.always: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.asked: list[Asked] = []
        self.connections = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                api.connections += 1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                authorized = self.headers["Authorization"] == f"Bearer {TOKEN}"
                known = {address: api.entry(address) for address in body}
                self._answer(
                    body, (200, known) if authorized and self.path == "/batch" and len(body) <= 1_000 else None
                )

            def do_GET(self) -> None:
                address, _, tail = self.path.removeprefix("/").partition("/")
                self._answer([address], (200, api.entry(address)) if tail == "json" else None)

            def _answer(self, addresses: list[str], answer: tuple[int, Any] | None) -> None:
                api.asked.append(Asked(self.command, self.path, dict(self.headers), addresses))
                if api.told or api.always:
                    (api.told.popleft() if api.told else api.always)(self)  # type: ignore[misc]
                    return
                status, body = answer or (403, {"status": 403, "error": {"title": "Unknown token"}})
                respond(self, status, json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *connection: Any) -> None:
                if not isinstance(sys.exception(), OSError):  # we hung up on it, which some tests are about
                    super().handle_error(*connection)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def entry(self, address: str) -> Any:
        return self.entries.get(address, {"ip": address})

    def __enter__(self) -> "Api":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def entry(address: str, place: Place) -> dict[str, str]:
    """Write what https://ipinfo.io/developers shows for an address."""
    known = {"country": place.country, "region": place.region or "", "city": place.city or ""}
    return {"ip": address, "hostname": "a.host", **known, "loc": "37.4,-122.1", "org": "AS15169 Google LLC"}


def respond(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def answers(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: respond(handler, status, body, named)


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"8.8.8.8": {"ip"')
    handler.close_connection = True


def stays_silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.5)
    hangs_up(handler)


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.02)
    except OSError:
        handler.close_connection = True


def floods(handler: BaseHTTPRequestHandler) -> None:
    """Answer in chunks that do not say how many there will be."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(160):
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    except OSError:
        handler.close_connection = True


def in_chunks(handler: BaseHTTPRequestHandler) -> None:
    body = json.dumps({FULL: entry(FULL, PLACES[FULL])}).encode()
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for part in (body[:7], body[7:]):
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
    handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        yield api


@dataclass
class Time:
    """A clock that only sleeping moves on."""

    now: float = 1_000.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def ipinfo(url: str, when: Time | None = None, **changed: Any) -> IpInfo:
    session = keep_alive()
    session.trust_env = False  # a proxy of the machine would not know this server
    told: dict[str, Any] = {"token": TOKEN, "session": session, "rng": Random(5)}
    if when is not None:
        breaker = CircuitBreaker(clock=when, name="the stand-in")
        told |= {"clock": when, "sleep": when.sleep, "breaker": breaker}
    return IpInfo(base_url=url, **{**told, **changed})


# What all of them promise


@pytest.fixture(params=["memory", "MaxMind's file", "a small file", "ipinfo", "ipinfo without a token"])
def provider(request: pytest.FixtureRequest) -> Iterator[GeoProvider]:
    provider: GeoProvider
    if request.param == "memory":
        provider = InMemoryGeo(PLACES)
    elif request.param == "MaxMind's file":
        provider = Mmdb(request.getfixturevalue("geo_database"))
    elif request.param == "a small file":
        records = {str(ip_network(address)): city(place) for address, place in PLACES.items()}
        provider = Mmdb(request.getfixturevalue("written")(records))
    else:
        url = request.getfixturevalue("api").url
        provider = ipinfo(url) if request.param == "ipinfo" else ipinfo(url, token=None)
    yield provider
    provider.close()


def test_a_known_address_has_a_country_a_region_and_a_city(provider: GeoProvider) -> None:
    assert provider.find([FULL]) == {FULL: Place("US", "Massachusetts", "Cambridge")}


def test_a_place_may_be_a_country_alone(provider: GeoProvider) -> None:
    assert provider.find([COUNTRY_ONLY]) == {COUNTRY_ONLY: Place("US", None, None)}


def test_ipv6_addresses_are_placed_as_well(provider: GeoProvider) -> None:
    assert provider.find([OVER_IPV6]) == {OVER_IPV6: Place("US", "California", "Berkeley")}


def test_an_address_nobody_knows_is_answered_with_none(provider: GeoProvider) -> None:
    assert provider.find([NOBODY_KNOWS]) == {NOBODY_KNOWS: None}


def test_every_address_of_a_batch_is_answered_and_no_other(provider: GeoProvider) -> None:
    asked = [*PLACES, NOBODY_KNOWS]

    found = provider.find(asked)

    assert set(found) == set(asked)
    assert {address: place.country for address, place in found.items() if place} == {
        address: place.country for address, place in PLACES.items()
    }


def test_asking_again_or_twice_in_one_batch_changes_nothing(provider: GeoProvider) -> None:
    once = provider.find([FULL, NOBODY_KNOWS])

    assert provider.find([FULL, NOBODY_KNOWS]) == once
    assert provider.find([NOBODY_KNOWS, FULL, FULL, NOBODY_KNOWS]) == once


def test_about_no_address_nothing_is_said(provider: GeoProvider) -> None:
    assert provider.find([]) == {}


def test_threads_may_ask_at_once(provider: GeoProvider) -> None:
    questions = [[address, NOBODY_KNOWS] for address in PLACES] * 5

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(provider.find, questions))

    assert [set(one) for one in found] == [set(asked) for asked in questions]
    assert all(one[address] is not None for one, (address, _) in zip(found, questions, strict=True))


# What those promise who may be kept from answering


@dataclass
class Shaky:
    provider: GeoProvider
    cannot_say: Callable[[str], None]
    go_down: Callable[[], None]


@pytest.fixture(params=["memory", "ipinfo", "ipinfo without a token"])
def shaky(request: pytest.FixtureRequest) -> Shaky:
    if request.param == "memory":
        memory = InMemoryGeo(PLACES, metered=True)
        return Shaky(
            memory,
            lambda address: setattr(memory, "unanswerable", {address}),
            lambda: setattr(memory, "trouble", Unavailable("down")),
        )
    api = request.getfixturevalue("api")
    return Shaky(
        ipinfo(api.url, Time(), token=TOKEN if request.param == "ipinfo" else None),
        lambda address: api.entries.update({address: {"ip": address, "error": {"title": "Not now"}}}),
        lambda: setattr(api, "always", answers(503)),
    )


def test_an_address_it_could_not_ask_about_is_left_out_and_one_nobody_knows_is_not(shaky: Shaky) -> None:
    shaky.cannot_say(COUNTRY_ONLY)

    assert shaky.provider.find([FULL, COUNTRY_ONLY, NOBODY_KNOWS]) == {FULL: PLACES[FULL], NOBODY_KNOWS: None}


def test_when_nothing_can_be_asked_it_is_unavailable(shaky: Shaky) -> None:
    shaky.go_down()

    with pytest.raises(Unavailable):
        shaky.provider.find([FULL, NOBODY_KNOWS])


def test_it_says_that_it_is_metered(shaky: Shaky) -> None:
    assert shaky.provider.metered


# Files alone


def test_a_file_is_read_as_the_oracle_reads_it(geo_database: Path) -> None:
    random = Random(8)
    sure = [f"{random.randrange(1, 224)}.{random.randrange(256)}.{random.randrange(256)}.7" for _ in range(3_000)]
    sure += [f"2{random.randrange(0x1000):03x}:{random.randrange(0x10000):x}::7" for _ in range(1_000)]
    asked = [address for address in map(public_address, sure) if address is not None]
    reader = maxminddb.open_database(geo_database, maxminddb.MODE_MMAP)

    found = Mmdb(geo_database).find(asked)

    assert len(found) > 2_500
    for address, place in found.items():
        expected = oracle.place(address, reader.get)
        assert (place is not None) == (expected["geo_status"] == "found")
        if place is not None:
            assert (place.country, place.region, place.city) == (
                expected["country"],
                expected["region"],
                expected["city"],
            )


def test_a_file_is_free_to_ask(geo_database: Path) -> None:
    assert Mmdb(geo_database).metered is False


def test_a_country_file_gives_countries_alone(written: Callable[..., Path]) -> None:
    path = written({"18.9.0.0/16": {"country": {"iso_code": "US"}, "continent": {"code": "NA"}}}, kind="Test-Country")

    assert Mmdb(path).find([FULL, COUNTRY_ONLY]) == {FULL: Place("US"), COUNTRY_ONLY: None}


@pytest.mark.parametrize(
    "record",
    [
        {"registered_country": {"iso_code": "AU"}},
        {"country": {"names": {"en": "Australia"}}},
        {"country": {"iso_code": ""}},
        {"country": "AU"},
        {"country": ["AU"]},
        {},
        "AU",
        [],
    ],
)
def test_a_record_without_a_country_code_is_as_unknown_as_none(written: Callable[..., Path], record: object) -> None:
    path = written({"1.1.1.0/24": record, "18.9.0.0/16": city(PLACES[FULL])})

    assert Mmdb(path).find(["1.1.1.1", FULL]) == {"1.1.1.1": None, FULL: PLACES[FULL]}


@pytest.mark.parametrize("odd", [[], {}, "x", [{}], [{"names": {"de": "x"}}], [["en"]], [{"names": {"en": 7}}]])
def test_a_region_or_city_of_another_shape_is_not_known(written: Callable[..., Path], odd: object) -> None:
    path = written({"18.9.0.0/16": {"country": {"iso_code": "US"}, "subdivisions": odd, "city": odd}})

    assert Mmdb(path).find([FULL]) == {FULL: Place("US")}


def test_a_file_for_ipv4_alone_knows_no_ipv6_address(written: Callable[..., Path]) -> None:
    path = written({"18.9.0.0/16": city(PLACES[FULL])}, ip_version=4)

    assert Mmdb(path).find([OVER_IPV6, FULL]) == {OVER_IPV6: None, FULL: PLACES[FULL]}


@pytest.mark.parametrize("content", [None, b"", b"no database", gzip.compress(mmdb({"1.1.1.0/24": city(Place("AU"))}))])
def test_a_missing_or_broken_file_is_refused_with_the_next_step(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "places.mmdb"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(Refused, match=rf"{path} cannot be opened.*Next: .*`clickstream setup`.* group geo, key `mmdb`"):
        Mmdb(path)


def test_a_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"{tmp_path} cannot be opened"):
        Mmdb(tmp_path)


@pytest.mark.parametrize(
    "records",
    [{}, {"1.1.1.0/24": {"autonomous_system_number": 13335}}, {"1.1.1.0/24": {"country": "AU", "city": "Sydney"}}],
)
def test_a_file_that_knows_no_country_is_refused_when_it_is_opened(
    written: Callable[..., Path], records: dict[str, object]
) -> None:
    with pytest.raises(Refused, match=r"a 'Test-ASN' without a country.iso_code in it. Next: "):
        Mmdb(written(records, kind="Test-ASN"))


def test_a_file_found_broken_later_is_refused_then(tmp_path: Path) -> None:
    content = mmdb({"1.1.1.0/24": city(Place("AU")), "18.9.0.0/16": city(Place("US", "Massachusetts"))})
    path = tmp_path / "places.mmdb"
    path.write_bytes(content.replace(b"Massachusetts", b"\xff" * 13))
    provider = Mmdb(path)

    with pytest.raises(Refused, match=rf"{path} is broken inside.*Next: "):
        provider.find([FULL])


@pytest.mark.parametrize("damage", [0x00, 0xFF])
def test_damage_anywhere_in_a_file_is_refused_or_does_no_harm(tmp_path: Path, damage: int) -> None:
    content = mmdb({"1.1.1.0/24": city(Place("AU")), "18.9.0.0/16": city(Place("US", "Massachusetts"))})
    refused = 0

    for at in range(len(content)):
        path = tmp_path / f"{at}.mmdb"
        path.write_bytes(content[:at] + bytes([damage]) + content[at + 1 :])
        try:
            assert Mmdb(path).find([FULL, OVER_IPV6]).keys() == {FULL, OVER_IPV6}
        except Refused:
            refused += 1

    assert 0 < refused < len(content)


# ipinfo.io alone: what is sent


def some_addresses(count: int) -> list[str]:
    return [f"20.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(count)]


def test_batches_hold_a_thousand_addresses_and_each_is_asked_for_once(api: Api) -> None:
    addresses = some_addresses(2_500)

    found = ipinfo(api.url).find([*addresses, *addresses])

    assert found == dict.fromkeys(addresses)
    assert [len(asked.addresses) for asked in api.asked] == [1_000, 1_000, 500]
    assert [address for asked in api.asked for address in asked.addresses] == addresses


def test_the_token_travels_in_a_header_and_nowhere_else(api: Api) -> None:
    ipinfo(f"{api.url}/").find([FULL])

    [asked] = api.asked
    assert (asked.method, asked.path) == ("POST", "/batch")
    assert asked.headers.pop("Authorization") == f"Bearer {TOKEN}"
    assert TOKEN not in str(asked)


def test_no_packed_answer_is_asked_for(api: Api) -> None:
    ipinfo(api.url).find([FULL])

    assert api.asked[0].headers["Accept-Encoding"] == "identity"


def test_without_a_token_addresses_are_looked_up_one_by_one(api: Api) -> None:
    ipinfo(api.url, token=None).find([FULL, OVER_IPV6])

    assert [(asked.method, asked.path) for asked in api.asked] == [
        ("GET", f"/{FULL}/json"),
        ("GET", f"/{OVER_IPV6}/json"),
    ]
    assert not any("Authorization" in asked.headers for asked in api.asked)


@pytest.mark.parametrize("token", [TOKEN, None])
def test_a_password_in_a_netrc_file_takes_no_part(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    found = ipinfo(api.url, token=token, session=keep_alive()).find([FULL])

    assert found == {FULL: PLACES[FULL]}
    assert api.asked[0].headers.get("Authorization") == (token and f"Bearer {token}")


def test_the_token_passes_no_proxy_in_clear(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    assert ipinfo(api.url, session=keep_alive()).find([FULL]) == {FULL: PLACES[FULL]}


def test_connections_stay_open_and_cookies_are_not_kept(api: Api) -> None:
    provider = ipinfo(api.url)
    api.told.append(answers(200, b'{"8.8.8.8": {"ip": "8.8.8.8"}}', Set_Cookie="visitor=7; Path=/"))

    for _ in range(10):
        provider.find([COUNTRY_ONLY])

    assert api.connections == 1
    assert not any("Cookie" in asked.headers for asked in api.asked)


@pytest.mark.parametrize(
    "url",
    [
        "http://ipinfo.io",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost@example.com",
        "http://user:t0ken@127.0.0.1",
        "https://t0ken@ipinfo.io",
        "https://ipinfo.io?token=t0ken",
        "https://ipinfo.io#t0ken",
        "ftp://ipinfo.io",
        "ipinfo.io",
        "https://",
        "https://[::1",
        "",
    ],
)
def test_an_address_that_would_give_secrets_away_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Refused, match=r"group geo, key `ipinfo\.url`.* like https://ipinfo.io") as refused:
        IpInfo(token="t0ken", base_url=url)

    assert "t0ken" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://ipinfo.io/", "https://api.ipinfo.io", "http://localhost:80", "http://[::1]:80"]
)
def test_an_address_over_tls_or_on_this_machine_is_fine(url: str) -> None:
    assert IpInfo(token="t0ken", base_url=url).metered


@pytest.mark.parametrize("token", ["", "to ken", "token\r\nX-Evil: 1", "tökén", "t0ken\n"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(Refused, match=r"IPINFO_TOKEN.* key `ipinfo\.token`") as refused:
        IpInfo(token=token)

    assert not token.strip() or token.strip() not in str(refused.value)


def test_how_a_provider_is_shown_does_not_show_the_token() -> None:
    assert "t0ken" not in repr(IpInfo(token="t0ken"))


# ipinfo.io alone: what comes back


class Canned(BaseAdapter):
    """Answers every request with the same body or trouble, without a network."""

    def __init__(self, body: bytes | Exception) -> None:
        super().__init__()
        self.body = body
        self.requests = 0

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        self.requests += 1
        if isinstance(self.body, Exception):
            raise self.body
        answer = requests.Response()
        answer.status_code = 200
        answer.request = request
        answer.raw = urllib3.HTTPResponse(io.BytesIO(self.body), preload_content=False)
        return answer

    def close(self) -> None:
        pass


def told(body: bytes, addresses: Sequence[str] = (FULL,)) -> Mapping[str, Place | None]:
    session = requests.Session()
    session.mount("https://", Canned(body))
    return IpInfo(token=TOKEN, session=session).find(addresses)


def told_of(said: object) -> Mapping[str, Place | None]:
    return told(
        json.dumps({FULL: said, COUNTRY_ONLY: entry(COUNTRY_ONLY, PLACES[COUNTRY_ONLY])}).encode(), [FULL, COUNTRY_ONLY]
    )


@pytest.mark.parametrize(
    "said",
    [
        None,
        "US",
        7,
        [],
        {},
        {"country": "US"},
        {"ip": FULL, "country": 7},
        {"ip": FULL, "country": ["US"]},
        {"ip": FULL, "country": "US", "region": {"name": "Texas"}},
        {"ip": FULL, "country": "US", "city": 7},
        {"ip": FULL, "geo": "US"},
        {"status": 404, "error": {"title": "Wrong ip", "message": "Please provide a valid IP address"}},
        {"ip": FULL, "country": "US", "error": "Rate limit exceeded"},
    ],
)
def test_an_entry_of_another_shape_leaves_its_address_out_and_no_other(said: object) -> None:
    assert told_of(said) == {COUNTRY_ONLY: Place("US")}


@pytest.mark.parametrize("country", ["", "us", "USA", "U", "U1", "ÅÄ", "United States", "US\n", None])
def test_a_country_that_is_no_code_is_unknown(country: str | None) -> None:
    assert told_of({"ip": FULL, "country": country, "city": "Cambridge"})[FULL] is None


def test_a_reserved_address_is_unknown() -> None:
    assert told_of({"ip": FULL, "bogon": True})[FULL] is None


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Cambridge", "Cambridge"),
        ("Île-de-France", "Île-de-France"),
        ("  Brno ", "Brno"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("x" * 1_000_000, None),
        ("New\nYork", None),
        ("\u0000", None),
        (" ", None),
        ("", None),
        (None, None),
    ],
)
def test_a_region_or_city_is_up_to_128_printable_characters_or_not_known(said: str | None, name: str | None) -> None:
    assert told_of({"ip": FULL, "country": "US", "region": said, "city": said})[FULL] == Place("US", name, name)


def test_the_newer_layout_is_understood_too() -> None:
    location = {"city": "Lille", "region": "Hauts-de-France", "country": "France", "country_code": "FR"}

    assert told_of({"ip": FULL, "geo": location, "as": {"asn": "AS16276"}})[FULL] == Place(
        "FR", "Hauts-de-France", "Lille"
    )
    assert told_of({"ip": FULL, "country": "France", "country_code": "FR"})[FULL] == Place("FR")


def test_what_was_not_asked_for_is_not_passed_on() -> None:
    body = json.dumps({address: entry(address, place) for address, place in PLACES.items()}).encode()

    assert told(body, [FULL]) == {FULL: PLACES[FULL]}


RUBBISH = [
    b"",
    b"<html>Sign in to the hotel's network</html>",
    b"null",
    b"[]",
    b'"US"',
    b"{",
    b"{}",
    b"\xff\xfe",
    b'{"error": "Rate limit exceeded"}',
    b'{"18.9.22.69": {"ip": "18.9.22.69", "country": "US"',
    b'{"18.9.22.69": {"ip": "18.9.22.69", "country": "\xff"}}',
    b'{"18.9.22.69": {"ip": "18.9.22.69", "asn": ' + b"9" * 10_000 + b"x}}",
    b'{"18.9.22.69": ' + b"[" * 200_000,
    b"[" * 200_000,
    gzip.compress(b"{}"),
]


@pytest.mark.parametrize("body", RUBBISH)
def test_an_answer_that_cannot_be_understood_is_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match=r"https://ipinfo.io said nothing that could be used. Next: "):
        told(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
LOCATION = {"country": st.just("US") | ANYTHING, "country_code": ANYTHING, "region": ANYTHING, "city": ANYTHING}
ENTRY = st.fixed_dictionaries(
    {"ip": st.just(FULL)},
    optional={**LOCATION, "geo": st.fixed_dictionaries({}, optional=LOCATION) | ANYTHING, "error": ANYTHING},
)


@given(
    st.binary() | (ANYTHING | st.fixed_dictionaries({FULL: ENTRY | ANYTHING})).map(lambda it: json.dumps(it).encode())
)
def test_whatever_the_answer_a_place_comes_out_or_it_is_unavailable(body: bytes) -> None:
    try:
        found = told(body)
    except Unavailable:
        return

    assert set(found) == {FULL}
    for place in filter(None, found.values()):
        assert re.fullmatch("[A-Z]{2}", place.country)
        assert all(1 <= len(name) <= 128 for name in (place.region, place.city) if name is not None)


def test_an_answer_in_chunks_is_read_whole(api: Api) -> None:
    api.told.append(in_chunks)

    assert ipinfo(api.url).find([FULL]) == {FULL: PLACES[FULL]}


# ipinfo.io alone: when it is down, slow, full or mad


def test_a_5xx_and_a_broken_connection_are_tried_again_after_growing_pauses(api: Api) -> None:
    when = Time()
    api.told.extend([answers(503), hangs_up, breaks_off])

    found = ipinfo(api.url, when, attempts=4).find([FULL])

    assert found == {FULL: PLACES[FULL]}
    assert len(api.asked) == 4
    assert len(when.pauses) == 3
    assert when.pauses == sorted(when.pauses)


@pytest.mark.parametrize("trouble", [answers(500), answers(504), answers(408), hangs_up])
def test_trouble_that_lasts_is_unavailable_and_says_what_to_do(
    api: Api, trouble: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    api.always = trouble

    with pytest.raises(Unavailable, match=rf"{api.url} (answered|could not).* at attempt 3. Next: .*curl -i {api.url}"):
        ipinfo(api.url, Time()).find([FULL])

    assert len(api.asked) == 3


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        with pytest.raises(Unavailable, match=r"could not be asked \(ConnectionError\) at attempt 3"):
            ipinfo(f"http://127.0.0.1:{closed.getsockname()[1]}", Time()).find([FULL])


def test_a_request_that_was_taken_and_not_answered_is_not_paid_for_twice(api: Api) -> None:
    api.always = stays_silent

    with pytest.raises(Unavailable, match=r"did not answer within 0.1 s at attempt 1"):
        ipinfo(api.url, read_timeout=0.1).find([FULL])

    assert len(api.asked) == 1


def test_an_answer_that_comes_byte_by_byte_is_given_up_when_patience_ends(api: Api) -> None:
    api.always = drips
    began = time.monotonic()

    with pytest.raises(Unavailable, match=r"did not end its answer within 0.3 s"):
        ipinfo(api.url, patience=0.3).find([FULL])

    assert 0.2 < time.monotonic() - began < 1.8  # seconds; all of it takes 2
    assert len(api.asked) == 1


@pytest.mark.parametrize("error", [requests.exceptions.SSLError(FULL), requests.exceptions.InvalidProxyURL(FULL)])
def test_what_no_second_attempt_can_mend_is_not_tried_again(error: Exception) -> None:
    session, canned = requests.Session(), Canned(error)
    session.mount("https://", canned)

    with pytest.raises(Unavailable, match=rf"could not be asked \({type(error).__name__}\) at attempt 1\. Next: "):
        IpInfo(token=TOKEN, session=session).find([FULL])

    assert canned.requests == 1


@pytest.mark.parametrize("flood", [answers(200, b"x" * 10_000_000), floods])
def test_an_answer_too_large_is_not_read_to_its_end(api: Api, flood: Callable[[BaseHTTPRequestHandler], None]) -> None:
    api.always = flood

    with pytest.raises(Unavailable, match=rf"answered with more than {MAX_ANSWER_BYTES:,} bytes"):
        ipinfo(api.url).find([FULL])

    assert len(api.asked) == 1


@pytest.mark.parametrize("token", [TOKEN, None])
def test_what_was_answered_before_trouble_began_is_kept(api: Api, token: str | None) -> None:
    addresses = some_addresses(1_500 if token else 5)
    served = 1_000 if token else 1
    api.told.append(lambda handler: respond_known(handler, addresses[:served], alone=token is None))
    api.always = answers(503)

    found = ipinfo(api.url, Time(), token=token).find(addresses)

    assert found == dict.fromkeys(addresses[:served])


def respond_known(handler: BaseHTTPRequestHandler, addresses: list[str], *, alone: bool) -> None:
    entries = {address: {"ip": address} for address in addresses}
    respond(handler, 200, json.dumps(entries[addresses[0]] if alone else entries).encode())


def test_look_ups_without_a_token_end_with_patience_too(api: Api) -> None:
    when = Time()
    served: list[str] = []

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        when.now += 3.0
        served.append(handler.path)
        respond(handler, 200, b'{"ip": "x", "country": "US"}')

    api.always = slowly

    found = ipinfo(api.url, when, token=None, patience=10.0).find(some_addresses(100))

    assert len(served) == 4
    assert len(found) == 3


def test_no_attempt_is_made_once_patience_is_at_an_end(api: Api) -> None:
    when = Time()
    api.always = answers(503)

    with pytest.raises(Unavailable, match=r"answered 503 at attempt [23]\."):
        ipinfo(api.url, when, attempts=100, patience=0.25).find([FULL])

    assert 0 < sum(when.pauses) < 0.25


# ipinfo.io alone: when it says no


@pytest.mark.parametrize("retry_after", ["2", format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)])
def test_a_429_with_a_short_wait_is_waited_out(api: Api, retry_after: str) -> None:
    when = Time()
    api.told.append(answers(429, Retry_After=retry_after))

    found = ipinfo(api.url, when).find([FULL])

    assert found == {FULL: PLACES[FULL]}
    assert len(when.pauses) == 1
    assert retry_after != "2" or when.pauses == [2.0]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("600", 600),
        ("99999999999999999999", 3_600),
        (format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True), 3_600),
        ("soon", 60),
        ("nan", 60),
        ("", 60),
        ("9" * 5_000, 60),
        ("Mon, 99 Foo 99999 99:99:99 GMT", 60),
        (None, 60),
    ],
)
def test_a_429_with_a_long_wait_is_unavailable_at_once_and_the_server_left_alone(
    api: Api, retry_after: str | None, seconds: int
) -> None:
    when = Time()
    provider = ipinfo(api.url, when)
    api.told.append(answers(429) if retry_after is None else answers(429, Retry_After=retry_after))

    with pytest.raises(Unavailable, match=rf"answered 429 at attempt 1, and is left alone for {seconds} s\. Next: "):
        provider.find([FULL])
    when.now += seconds - 1
    with pytest.raises(Unavailable, match=r"the stand-in has failed and is left alone: the next try is in 1 s"):
        provider.find([FULL])

    assert len(api.asked) == 1
    assert when.pauses == []
    when.now += 1
    assert provider.find([FULL]) == {FULL: PLACES[FULL]}


def test_five_failures_in_a_row_leave_the_server_alone_for_half_a_minute(api: Api) -> None:
    when = Time()
    provider = ipinfo(api.url, when)
    api.always = answers(500)

    for _ in range(4):
        with pytest.raises(Unavailable):
            provider.find([FULL])

    asked, state = len(api.asked), provider.breaker.state
    when.now += 30
    api.always = None
    found = provider.find([FULL])

    assert (asked, state) == (5, State.OPEN)
    assert found == {FULL: PLACES[FULL]}
    assert provider.breaker.state is State.CLOSED


def test_answers_of_no_use_count_as_failures(api: Api) -> None:
    provider = ipinfo(api.url, Time())
    api.always = answers(200, b"{}")

    for _ in range(7):
        with pytest.raises(Unavailable):
            provider.find([FULL])

    assert len(api.asked) == 5


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_accepted_is_refused_with_where_to_put_another(api: Api, status: int) -> None:
    when = Time()
    provider = ipinfo(api.url, when, token="wr0ng")
    api.always = answers(status)

    with pytest.raises(
        Refused, match=rf"{status}: it does not accept .* IPINFO_TOKEN, .* group geo, key `ipinfo\.token`"
    ):
        provider.find([FULL])

    assert when.pauses == []
    assert len(api.asked) == 1


def test_a_token_that_is_not_accepted_is_tried_once_a_minute(api: Api) -> None:
    when = Time()
    provider = ipinfo(api.url, when, token="wr0ng")

    for kind in (Refused, Unavailable, Unavailable):
        with pytest.raises(kind):
            provider.find([FULL])
    when.now += 60
    with pytest.raises(Refused):
        provider.find([FULL])

    assert len(api.asked) == 2


def test_who_has_no_token_is_told_where_to_put_one(api: Api) -> None:
    api.always = answers(401)

    with pytest.raises(Refused, match=r"it wants a token. Next: .* IPINFO_TOKEN"):
        ipinfo(api.url, token=None).find([FULL])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_the_token_not_taken_there(api: Api, status: int) -> None:
    with Api() as elsewhere:
        api.always = answers(status, Location=f"{elsewhere.url}/batch")

        with pytest.raises(Refused, match=rf"{status}: .* key `ipinfo\.url`; no redirect is followed"):
            ipinfo(api.url).find([FULL])

        assert elsewhere.asked == []


@pytest.mark.parametrize("status", [204, 400, 404, 405, 413, 422])
def test_any_other_answer_means_that_the_address_is_wrong(api: Api, status: int) -> None:
    api.always = answers(status)

    with pytest.raises(Refused, match=rf"{api.url} answered {status}: .* Next: check the settings"):
        ipinfo(api.url).find([FULL])


@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize(
    "trouble",
    [
        answers(200, b'{"18.9.22.69": "18.9.22.69"}'),
        answers(429, b"18.9.22.69", Retry_After="600"),
        answers(403, b"18.9.22.69"),
        answers(404, b"18.9.22.69"),
        answers(500, b"18.9.22.69"),
        answers(302, Location="/18.9.22.69"),
        answers(200, b"x" * 10_000_000),
        hangs_up,
        breaks_off,
        stays_silent,
    ],
)
def test_nothing_that_is_said_or_logged_names_an_address_an_answer_or_the_token(
    api: Api,
    caplog: pytest.LogCaptureFixture,
    token: str | None,
    trouble: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    api.always = trouble

    with pytest.raises(ClickstreamError) as raised:
        ipinfo(api.url, token=token, read_timeout=0.1, sleep=lambda _: None).find([FULL])

    said = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__context__) + caplog.text
    for hidden in (FULL, "8.8.8.8", TOKEN, "xxxx"):
        assert hidden not in said
