"""Addresses that are not stored as they came."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clickstream.address import HASHES, HiddenAddresses
from clickstream.decode import decode
from clickstream.errors import Refused
from clickstream.event import Event
from clickstream.settings import Lake, Privacy, Settings, read_settings
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment
from flink_app.wiring import hidden_addresses
from tests.events import arrived, payload, stored
from tests.unit.test_process import NAMES, PLACES

TRUNCATE = HiddenAddresses("truncate", b"k" * 16)
HASH = HiddenAddresses("hash", b"k" * 16)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


def process(hide: HiddenAddresses) -> Process:
    shared = InMemoryShared(NAMES)
    answers = LayeredAnswers(PlaceMemory(1000), Memory(1000), shared, InMemoryGeo(PLACES), Background())
    return Process(enrichment(answers, shared), archive=True, hide=hide)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("111.33.64.227", "111.33.64.0"),
        ("::ffff:111.33.64.227", "111.33.64.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::1", "::"),
    ],
)
def test_truncated_an_address_is_its_network(address: str, network: str) -> None:
    assert TRUNCATE.of(address) == network
    assert TRUNCATE.of(network) == network


@given(ADDRESSES, ADDRESSES)
def test_hashed_an_address_is_another_one_always_the_same_and_its_own(one: str, other: str) -> None:
    assume(_mapped(one) != _mapped(other))

    assert IPv6Address(HASH.of(one)) in HASHES
    assert HASH.of(one) == HASH.of(HASH.of(one)) == HASH.of(ip_address(one).exploded)
    assert HASH.of(one) != HASH.of(other)
    assert HASH.of(one) != replace(HASH, key=b"another key, long").of(one)


def _mapped(text: str) -> IPv6Address:
    """Write an IPv4 address as the IPv6 address that means it."""
    return IPv6Address(text if ":" in text else f"::ffff:{text}")


def test_however_an_ipv4_is_written_its_hash_is_the_same() -> None:
    assert HASH.of("::ffff:8.8.8.8") == HASH.of("::ffff:808:808") == HASH.of("8.8.8.8") == TRUNCATE.hash("8.8.8.8")


@pytest.mark.parametrize("hide", [TRUNCATE, HASH], ids=["truncate", "hash"])
@given(address=ADDRESSES, escape=st.booleans())
def test_in_its_bytes_an_event_has_the_address_that_its_row_has_and_is_else_as_it_was(
    hide: HiddenAddresses, address: str, escape: bool
) -> None:
    before = payload(user_ip=address)
    if escape:
        spelled = "".join(f"\\u{ord(letter):04x}" for letter in address)
        before = before.replace(json.dumps(address).encode(), f'"{spelled}"'.encode())

    after = decode(hide.in_bytes(before))

    assert isinstance(after, Event)
    expected = decode(before)
    assert isinstance(expected, Event)
    expected.user_ip = hide.of(address)
    assert after == expected


@pytest.mark.parametrize(
    "record",
    [
        b'{"user_ip": "111.33.64.227", ',
        b"user_ip=111.33.64.227",
        b"\xff\xfe 111.33.64.227",
        b'{"user_ip": "111.33.64.227:8080"}',
        b'{"forwarded_for": "111.33.64.227, 10.0.0.1"}',
        b'{"user_ip": "::ffff:111.33.64.227"}',
        b"12:01:58 111.33.64.227",
        b"12:01:58:111.33.64.227",
        b"at 8080:111.33.64.227.",
        b'{"user_ip": "111\\u002e33.64.22\\u0037"}',
        b"111.33.64.227.5",
        b"0111.033.064.227",
    ],
)
def test_broken_records_and_other_fields_do_not_keep_an_address_either(record: bytes) -> None:
    for hide in (TRUNCATE, HASH):
        after = hide.in_bytes(record)
        assert b"227" not in after
        assert b"22\\u0037" not in after
    assert b"33.64" not in HASH.in_bytes(record).replace(b"033.064", b"")


@pytest.mark.parametrize(
    "record", [b"2001:db8::1:2:3", b'{"ip":"2001:db8::1:2:3"', b"[2001:db8::1:2:3]:443", b"1:2:3:4:5:6:7"]
)
def test_an_ipv6_is_hidden_wherever_it_is(record: bytes) -> None:
    assert b"1:2:3" not in HASH.in_bytes(record)
    assert b"1:2:3" not in TRUNCATE.in_bytes(record)


def test_times_numbers_and_words_are_left_as_they_are() -> None:
    record = (
        b'{"timestamp": "2021-07-12 12:01:58.732726", "price": 1.25, "version": "1.2.3", "x": "\\\\u0031 caf\\u00e9"}'
    )

    assert HASH.in_bytes(record) == record


@given(st.binary(max_size=200))
def test_no_bytes_are_too_broken(record: bytes) -> None:
    TRUNCATE.in_bytes(record)
    HASH.in_bytes(record)


@pytest.mark.parametrize("hide", [TRUNCATE, HASH], ids=["truncate", "hash"])
def test_the_place_is_that_of_the_whole_address_and_nothing_stored_has_it(hide: HiddenAddresses) -> None:
    out = stored(
        process(hide)(arrived([payload(), payload(percent_viewed=101), b'{"user_ip": "111.33.64.227', payload()]))
    )

    assert out["enriched"]["city"].to_pylist() == ["Taiyuan", "Taiyuan"]
    assert out["enriched"]["user_ip"].to_pylist() == [hide.of("111.33.64.227")] * 2
    kept = out["raw"]["payload"].to_pylist() + out["rejected"]["payload"].to_pylist()
    assert len(kept) == 6
    assert not [row for row in kept if b"111.33.64.227" in row]


def test_what_is_hidden_goes_through_again_and_stays_as_it_is() -> None:
    once = stored(process(HASH)(arrived([payload(), b"{"])))

    again = stored(process(HASH)(arrived(once["raw"]["payload"].to_pylist())))

    assert again["enriched"]["user_ip"] == once["enriched"]["user_ip"]
    assert again["raw"] == once["raw"]
    assert again["enriched"]["geo_status"].to_pylist() == ["unknown"]


def test_without_a_key_worth_the_name_the_job_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "short")
    for key in (None, "env:SHORT"):
        settings = Settings(lake=Lake(root="s3://lake"), privacy=Privacy(ip="hash", key=key))
        with pytest.raises(Refused, match="openssl rand -hex 32"):
            hidden_addresses(settings)
    assert hidden_addresses(Settings(lake=Lake(root="s3://lake"))) is None

    monkeypatch.setenv("LONG", "k" * 16)
    file = tmp_path / "properties.json"
    file.write_bytes(Settings(lake=Lake(root="s3://lake"), privacy=Privacy(ip="hash", key="env:LONG")).to_properties())

    assert hidden_addresses(read_settings(file)) == HASH


def test_the_first_octets_alone_tell_no_two_neighbours_apart() -> None:
    neighbours = {TRUNCATE.of(str(IPv4Address("8.8.8.0") + number)) for number in range(256)}

    assert neighbours == {"8.8.8.0"}
