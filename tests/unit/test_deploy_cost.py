"""The estimate of a month: sums that can be done by hand, and the documentation that shows them."""

from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.servers import PROJECT
from deploy import cost, plan, template
from deploy.cost import Workload
from deploy.derived import TEMPLATES
from deploy.parts import NAMES

PRICES = cost.read_prices()
RATES = (10.0, 1_000.0, 10_000.0, 100_000.0)


def lines(events_per_second: float, part: str) -> dict[str, float]:
    found = cost.estimate(Workload(events_per_second), PRICES)
    return {line.what: line.dollars for line in found if line.part == part}


def test_tiers_are_priced_one_after_the_other() -> None:
    tiers = [[10, 3.0], [30, 2.0], [None, 1.0]]

    assert [cost.tiered(quantity, tiers) for quantity in (0, 10, 20, 30, 100)] == [0, 30, 50, 70, 140]


def test_a_thousand_events_a_second_take_two_shards_two_kpus_and_2628_million_requests() -> None:
    assert lines(1_000, "streams")["2 + 1 shards"] == pytest.approx(3 * 730 * 0.015)
    assert lines(1_000, "job")["2 KPUs"] == pytest.approx(2 * 730 * 0.11)
    assert lines(1_000, "front")["API requests"] == pytest.approx(333 * 3.5 + 667 * 2.8 + (2628 - 1000) * 2.38)


def test_large_events_take_more_shards_than_their_number_would() -> None:
    assert Workload(1_000).shards == 2
    assert Workload(1_000, event_bytes=10_000).shards == 14


def test_events_in_batches_make_the_door_cheaper_and_nothing_else() -> None:
    one, fifty = (cost.by_part(cost.estimate(Workload(1_000, events_per_request=n), PRICES)) for n in (1.0, 50.0))

    assert fifty["front"] < one["front"] / 20
    assert {part: one[part] for part in one if part != "front"} == {p: fifty[p] for p in fifty if p != "front"}


def test_every_part_has_a_cost_and_parts_left_out_have_none() -> None:
    load = Workload(10)

    assert tuple(cost.by_part(cost.estimate(load, PRICES))) == NAMES
    assert set(cost.by_part(cost.estimate(load, PRICES, ["job", "front"]))) == {"job", "front"}


def test_more_events_never_cost_less() -> None:
    totals = [
        sum(line.dollars for line in cost.estimate(replace(Workload(1), events_per_second=rate), PRICES))
        for rate in RATES
    ]

    assert totals == sorted(totals)


@pytest.mark.parametrize(("part", "kind"), cost.COUNTED)
def test_what_is_paid_by_the_piece_is_counted_as_the_templates_have_it(part: str, kind: str) -> None:
    bodies = plan.bodies(TEMPLATES)
    made = Counter(resource.type for resource in template.resources(bodies[part], {}))

    assert made[kind] == cost.COUNTED[part, kind]


def test_the_documentation_shows_what_the_command_prints() -> None:
    arguments = [word for rate in RATES for word in ("--events-per-second", f"{rate:.0f}")]

    printed = CliRunner().invoke(app, ["deploy", "cost", *arguments])

    assert printed.exit_code == 0
    assert printed.output.strip() in (PROJECT / "docs" / "aws.md").read_text()
