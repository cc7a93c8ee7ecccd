"""What the batch function counts, and what it writes into the log while the doors are shut."""

import logging

import pytest

from clickstream.errors import Unavailable
from connectors.testing import InMemoryGeo, InMemoryShared
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.metrics import GAUGES, PURPOSE, Key, Metrics
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment
from tests.events import ARRIVAL, arrived, payload
from tests.unit.test_process import PLACES

VIEW = payload(event_name="ViewContent", percent_viewed=90)


def metered(shared: InMemoryShared, geo: InMemoryGeo) -> tuple[Process, Metrics]:
    metrics = Metrics()
    answers = LayeredAnswers(PlaceMemory(9), Memory(9), shared, geo, Background(), metrics=metrics)
    now = ARRIVAL.timestamp() + 1.5
    return Process(enrichment(answers, shared, metrics), archive=True, metrics=metrics, now=lambda: now), metrics


def test_every_record_is_counted_as_decoded_or_rejected_by_reason() -> None:
    process, metrics = metered(InMemoryShared(), InMemoryGeo(PLACES))

    process(arrived([payload(), VIEW, b"{", b"{", b""]))
    taken = metrics.take()

    assert taken[Key("decoded")] == 2
    assert taken[Key("offers")] == 1
    assert {key.label: n for key, n in taken.items() if key.name == "rejected"} == {
        ("reason", "malformed_json"): 2,
        ("reason", "empty"): 1,
    }
    assert metrics.value("behind_millis") == 1500
    assert metrics.take() == {}


def test_hits_are_counted_by_the_layer_that_had_the_answer() -> None:
    shared = InMemoryShared({"35": "Ada Lovelace"})
    geo = InMemoryGeo(PLACES)
    process, metrics = metered(shared, geo)

    process(arrived([payload()]))
    first = metrics.take()
    process(arrived([payload()]))
    second = metrics.take()

    assert (first[Key("provider_calls")], first[Key("provider_addresses")]) == (1, 1)
    assert first[Key("name_hits", ("layer", "redis"))] == 1
    assert second[Key("place_hits", ("layer", "memory"))] == second[Key("name_hits", ("layer", "memory"))] == 1
    assert Key("provider_calls") not in second
    assert (first[Key("last_access_writes")], second[Key("last_access_writes")]) == (1, 1)


def test_trouble_is_counted() -> None:
    shared, geo = InMemoryShared(), InMemoryGeo(PLACES, trouble=Unavailable("no"))
    shared.down = True
    process, metrics = metered(shared, geo)

    process(arrived([payload()]))
    taken = metrics.take()

    assert (taken[Key("provider_errors")], taken[Key("last_access_lost")]) == (1, 1)
    assert taken[Key("redis_errors")] == 2


def test_whatever_is_counted_says_what_it_is_for() -> None:
    shared, geo = InMemoryShared(), InMemoryGeo(PLACES, trouble=Unavailable("no"))
    process, metrics = metered(shared, geo)
    process(arrived([payload(), b""]))
    shared.down = True
    process(arrived([payload(user_id="7"), b""]))

    assert {key.name for key in metrics.take()} <= PURPOSE.keys()
    assert set(GAUGES) <= PURPOSE.keys()


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("metered_provider", [True, False])
def test_no_log_line_names_a_user_an_address_or_a_payload(
    down: bool, metered_provider: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["Wilhelmina", "81.2.69.142", "her-pixel", "her-click"]
    name, address, pixel, click = secrets
    trouble = Unavailable("it is down") if down else None
    shared, geo = InMemoryShared(), InMemoryGeo({}, metered=metered_provider, trouble=trouble)
    shared.down = down
    process, _ = metered(shared, geo)

    process(arrived([payload(user_id=name, user_ip=address, pixel_id=pixel, click_id=click), name.encode(), b"\xff"]))

    assert bool(caplog.records) == down
    assert not [secret for secret in secrets if secret in caplog.text]
