import csv
import ipaddress
import itertools
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickstream.decode import Reason, Rejected, decode
from clickstream.event import MAX_EVENT_BYTES, Event
from connectors.pauses import backoff
from generator.lines import FilePublisher, key_for, lines, records_in
from generator.malformed import KINDS, ORDINARY, malformed, mixed
from generator.pace import batches, paced, size_of
from generator.people import people
from generator.records import Record
from generator.shoppers import Shoppers, write_customers
from tests.oracle import Refusal, read

START = datetime(2021, 7, 12, 12, 1, 58, tzinfo=UTC)
EXAMPLE = {
    "timestamp": "2021-07-12 12:01:58.732726",
    "user_id": "35",
    "pixel_id": "wjgao4w1oi",
    "click_id": "a5cf179b9c9d483abf6d424d44a293be",
    "insertion_timestamp": "2021-07-12 12:01:58.732754",
    "event_name": "Search",
    "user_ip": "111.33.64.227",
    "additional_data": {"time_on_data": 79, "percent_viewed": 39.7, "product_id": 557246, "price": 417.97},
}
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"
LOOKS = re.compile(
    rf'\{{"timestamp": "{MOMENT}", "user_id": "[1-9]\d*", "pixel_id": "[a-z0-9]{{10}}", "click_id": "[0-9a-f]{{32}}", '
    rf'"insertion_timestamp": "{MOMENT}", "event_name": "(Search|AddToCart|ViewContent|Purchase)", '
    r'"user_ip": "[0-9a-f.:]+", "additional_data": \{"time_on_data": [1-9]\d*, '
    r'"percent_viewed": (100|[1-9]?\d(\.[1-9])?), "product_id": [1-9]\d{5}, "price": [1-9]\d*(\.\d?[1-9])?\}\}'
)


def payloads(count: int, shoppers: Shoppers | None = None) -> list[bytes]:
    return [record.payload for record in itertools.islice((shoppers or Shoppers(1, start=START)).records(), count)]


@pytest.fixture(scope="module")
def clicks() -> list[dict[str, Any]]:
    return list(itertools.islice(Shoppers(1, start=START), 20_000))


def by_user(clicks: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    histories = defaultdict(list)
    for click in clicks:
        histories[click["user_id"]].append(click)
    return histories


# Shoppers: what an event looks like


def test_the_same_seed_and_start_give_the_same_bytes() -> None:
    assert payloads(3_000, Shoppers(7, start=START)) == payloads(3_000, Shoppers(7, start=START))


def test_another_seed_gives_other_shoppers() -> None:
    assert not set(payloads(100, Shoppers(7, start=START))) & set(payloads(100, Shoppers(8, start=START)))


def test_reading_the_records_again_starts_again() -> None:
    shoppers = Shoppers(7)

    assert payloads(100, shoppers) == payloads(100, shoppers)


def test_every_event_looks_like_the_example() -> None:
    assert LOOKS.fullmatch(json.dumps(EXAMPLE))
    assert [payload for payload in payloads(5_000) if not LOOKS.fullmatch(payload.decode())] == []


def test_an_event_as_a_dict_is_dumped_as_the_same_bytes() -> None:
    shoppers = Shoppers(7, start=START)

    dumped = [json.dumps(event).encode() for event in itertools.islice(shoppers, 2_000)]

    assert dumped == payloads(2_000, shoppers)


def test_every_event_is_valid() -> None:
    assert all(isinstance(decode(payload), Event) for payload in payloads(5_000))
    assert not any(isinstance(read(payload), Refusal) for payload in payloads(1_000))


def test_the_partition_key_is_the_user_id() -> None:
    for key, payload in itertools.islice(Shoppers(1).records(), 100):
        assert key == json.loads(payload)["user_id"]


def test_no_two_clicks_share_a_click_id(clicks: list[dict[str, Any]]) -> None:
    assert len({click["click_id"] for click in clicks}) == len(clicks)


# Shoppers: their clock


def when(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_clock_starts_at_the_start_and_never_goes_back(clicks: list[dict[str, Any]]) -> None:
    times = [when(click["timestamp"]) for click in clicks]

    assert START <= times[0] < START + timedelta(milliseconds=10)
    assert times == sorted(times)


def test_the_clock_runs_at_the_given_clicks_a_second() -> None:
    shoppers = Shoppers(1, start=START, per_second=20)

    last = json.loads(payloads(1_000, shoppers)[-1])

    assert timedelta(seconds=49.9) < when(last["timestamp"]) - START < timedelta(seconds=50)


def test_a_start_without_a_zone_is_in_utc() -> None:
    assert payloads(10, Shoppers(1, start=START.replace(tzinfo=None))) == payloads(10, Shoppers(1, start=START))


def test_without_a_start_it_is_now() -> None:
    before = datetime.now(UTC)

    first = json.loads(payloads(1, Shoppers(1))[0])

    assert before <= when(first["timestamp"]) <= datetime.now(UTC) + timedelta(seconds=1)


@given(micros=st.integers(min_value=999_900, max_value=999_999))
@settings(max_examples=20, deadline=None)
def test_an_event_is_inserted_some_microseconds_later_even_across_a_second(micros: int) -> None:
    shoppers = Shoppers(1, users=10, products=10, start=START.replace(microsecond=micros), per_second=100_000)

    for payload in payloads(20, shoppers):
        event = json.loads(payload)

        assert timedelta(0) < when(event["insertion_timestamp"]) - when(event["timestamp"]) < timedelta(milliseconds=1)


# Shoppers: how they behave


def test_three_views_in_ten_deserve_an_offer(clicks: list[dict[str, Any]]) -> None:
    views = [click["additional_data"]["percent_viewed"] for click in clicks if click["event_name"] == "ViewContent"]

    assert 0.27 < sum(viewed > 60 for viewed in views) / len(views) < 0.33


def test_percentages_are_sometimes_whole_numbers(clicks: list[dict[str, Any]]) -> None:
    whole = [isinstance(click["additional_data"]["percent_viewed"], int) for click in clicks]

    assert 0.05 < sum(whole) / len(whole) < 0.2


def test_who_sees_more_of_a_page_stays_longer(clicks: list[dict[str, Any]]) -> None:
    seen = [click["additional_data"]["percent_viewed"] for click in clicks]
    stayed = [click["additional_data"]["time_on_data"] for click in clicks]

    assert 0.6 < statistics.correlation(seen, stayed) < 0.99


def test_a_cart_follows_a_view_and_a_purchase_follows_a_cart_of_the_same_product(clicks: list[dict[str, Any]]) -> None:
    earlier = {"AddToCart": "ViewContent", "Purchase": "AddToCart"}
    steps = 0
    for history in by_user(clicks).values():
        assert history[0]["event_name"] == "Search"
        for before, click in itertools.pairwise(history):
            if click["event_name"] in earlier:
                steps += 1
                assert before["event_name"] == earlier[click["event_name"]]
                assert before["additional_data"]["product_id"] == click["additional_data"]["product_id"]
    assert steps > 1_000


def test_fewer_shoppers_take_each_further_step(clicks: list[dict[str, Any]]) -> None:
    times = Counter(click["event_name"] for click in clicks)

    assert times["Search"] > times["AddToCart"] > times["Purchase"] > 0
    assert times["ViewContent"] > 2 * times["AddToCart"]


def test_visits_of_many_shoppers_are_interleaved(clicks: list[dict[str, Any]]) -> None:
    neighbours = itertools.pairwise(click["user_id"] for click in clicks)

    assert sum(one != other for one, other in neighbours) > 0.9 * len(clicks)
    assert len({click["user_id"] for click in clicks[:500]}) > 50


def test_a_fifth_of_the_shoppers_and_products_makes_half_of_the_clicks(clicks: list[dict[str, Any]]) -> None:
    users = Counter(click["user_id"] for click in clicks)
    products = Counter(click["additional_data"]["product_id"] for click in clicks)

    assert sum(times for _, times in users.most_common(200)) > 0.5 * len(clicks)
    assert sum(times for _, times in products.most_common(1_000)) > 0.5 * len(clicks)
    assert users.most_common(1)[0][1] < 0.05 * len(clicks)


def test_a_user_keeps_one_pixel_and_one_or_two_addresses(clicks: list[dict[str, Any]]) -> None:
    for history in by_user(clicks).values():
        assert len({click["pixel_id"] for click in history}) == 1
        assert len({click["user_ip"] for click in history}) <= 2


def test_a_product_keeps_its_price(clicks: list[dict[str, Any]]) -> None:
    pairs = {(click["additional_data"]["product_id"], click["additional_data"]["price"]) for click in clicks}

    assert len(pairs) == len({product for product, _ in pairs})
    assert all(1 <= price <= 5_000 for _, price in pairs)


def test_most_addresses_are_public_some_are_ipv6_and_a_few_cannot_be_located() -> None:
    homes = [ipaddress.ip_address(person.addresses[0]) for person in people(1, 5_000)]

    assert 0.10 < sum(home.version == 6 for home in homes) / len(homes) < 0.25
    assert 0.01 < sum(not home.is_global for home in homes) / len(homes) < 0.05


def test_a_lone_shopper_with_a_single_product_shops_on() -> None:
    events = list(itertools.islice(Shoppers(1, users=1, products=1), 200))

    assert {event["user_id"] for event in events} == {"1"}
    assert len({event["additional_data"]["product_id"] for event in events}) == 1


@pytest.mark.parametrize("wrong", [{"users": 0}, {"products": 0}, {"products": 900_001}, {"per_second": 0}])
def test_shoppers_who_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shoppers need"):
        Shoppers(1, **wrong)


# Shoppers: the users table


def test_people_are_the_same_however_many_there_are() -> None:
    assert people(7, 1_000)[:10] == people(7, 10)


def test_customers_are_the_shoppers_of_the_events(clicks: list[dict[str, Any]]) -> None:
    pixels = {click["user_id"]: click["pixel_id"] for click in clicks}

    customers = list(Shoppers(1).customers())

    assert len(customers) == len({customer.customer_id for customer in customers})
    assert all(pixels.get(customer.customer_id, customer.pixel_id) == customer.pixel_id for customer in customers)


def test_about_one_shopper_in_twenty_never_signed_up() -> None:
    shoppers = Shoppers(1, users=5_000)

    assert 0.94 < len(list(shoppers.customers())) / 5_000 < 0.96


def test_customers_have_full_names_from_many_scripts_and_a_price() -> None:
    customers = list(Shoppers(1).customers())

    assert all(len(customer.name.split(" ")) == 2 for customer in customers)
    assert 0.2 < sum(customer.name.isascii() for customer in customers) / len(customers) < 0.7
    assert all(Decimal("0.05") <= customer.price_per_click <= Decimal("2.5") for customer in customers)


def test_customers_are_written_as_csv_that_reads_back(tmp_path: Path) -> None:
    customers = list(Shoppers(1).customers())

    write_customers(customers, tmp_path / "users.csv")

    with (tmp_path / "users.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["customer_id", "pixel_id", "name", "price_per_click"]
    assert rows == [[str(value) for value in astuple(customer)] for customer in customers]


# Malformed events

VALID = payloads(200)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(), number=st.integers(min_value=0, max_value=199))
@settings(max_examples=30, deadline=None)
def test_every_kind_is_invalid_to_the_oracle_and_to_us(kind: str, seed: int, number: int) -> None:
    valid = VALID[number]

    broken = malformed(valid, Random(seed), kind)

    assert isinstance(read(broken), Refusal)
    assert isinstance(decode(broken), Rejected)
    assert len(broken) <= MAX_EVENT_BYTES


def test_the_kinds_lead_to_every_reason_but_that_of_size() -> None:
    outcomes = [decode(malformed(VALID[0], Random(seed), kind)) for kind in KINDS for seed in range(20)]

    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)}

    assert reasons == set(Reason) - {Reason.TOO_LARGE}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_depends_on_the_seed_alone(kind: str) -> None:
    assert malformed(VALID[0], Random(5), kind) == malformed(VALID[0], Random(5), kind)


def test_only_one_kind_needs_more_than_a_line_and_it_is_never_chosen_unasked() -> None:
    with_newline = {kind for kind in KINDS for seed in range(50) if b"\n" in malformed(VALID[0], Random(seed), kind)}

    assert set(KINDS) - set(ORDINARY) == {"newline_in_text"}
    assert with_newline == {"newline_in_text"}


@given(share=st.floats(min_value=0, max_value=1), count=st.integers(min_value=0, max_value=300), seed=st.integers())
@settings(max_examples=60, deadline=None)
def test_of_any_first_n_events_exactly_the_share_is_malformed(share: float, count: int, seed: int) -> None:
    records = [Record("35", b"valid") for _ in range(count)]

    stream = mixed(records, share, Random(seed), kinds=("empty",))

    broken_so_far = itertools.accumulate(not record.payload for record in stream)
    assert list(broken_so_far) == [round(share * n) for n in range(1, count + 1)]


def test_a_mixed_stream_is_the_same_for_the_same_seed_and_keeps_keys_and_valid_records() -> None:
    records = list(itertools.islice(Shoppers(1).records(), 1_000))

    stream = list(mixed(records, 0.1, Random(5)))

    assert stream == list(mixed(records, 0.1, Random(5)))
    assert [record.partition_key for record in stream] == [record.partition_key for record in records]
    assert sum(one == other for one, other in zip(stream, records, strict=True)) == 900
    assert sum(isinstance(decode(record.payload), Rejected) for record in stream) == 100


def test_every_kind_turns_up_before_one_comes_again_and_is_tallied() -> None:
    records = itertools.islice(Shoppers(1).records(), 2 * len(ORDINARY))
    tally: Counter[str] = Counter()

    list(mixed(records, 1, Random(5), tally=tally))

    assert tally == dict.fromkeys(ORDINARY, 2)


def test_kinds_can_be_left_out() -> None:
    records = itertools.islice(Shoppers(1).records(), 200)

    stream = mixed(records, 1, Random(5), kinds=[kind for kind in ORDINARY if kind != "empty"])

    assert all(record.payload for record in stream)


def test_a_share_over_one_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        list(mixed([], 1.5, Random(5)))


# Pace


class Clock:
    """Time that passes only when somebody sleeps, or says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_items_leave_at_a_steady_rate() -> None:
    clock = Clock()

    left = [clock.now for _ in paced(range(101), 10, clock=clock, sleep=clock.sleep)]

    assert left == pytest.approx([100 + number / 10 for number in range(101)])


def test_at_a_high_rate_no_item_is_more_than_five_milliseconds_early() -> None:
    clock = Clock()

    left = [clock.now for _ in paced(range(10_000), 50_000, clock=clock, sleep=clock.sleep)]

    early = [100 + number / 50_000 - at for number, at in enumerate(left)]
    assert min(early) > -0.000_01
    assert max(early) <= 0.005_01
    assert len(set(left)) < 100


def test_a_short_delay_is_caught_up() -> None:
    clock = Clock()
    left = []

    for number in paced(range(30), 10, clock=clock, sleep=clock.sleep):
        left.append(clock.now)
        if number == 5:
            clock.now += 0.95

    assert left[6:15] == pytest.approx([101.45] * 9)
    assert left[-1] == pytest.approx(102.9)


def test_after_a_long_pause_only_a_seconds_worth_leaves_at_once() -> None:
    clock = Clock()
    left = []

    for number in paced(range(100), 10, clock=clock, sleep=clock.sleep):
        left.append(clock.now)
        if number == 5:
            clock.now += 3_600

    assert sum(at == left[6] for at in left) <= 12


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        next(paced([1], 0))


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=40), max_size=60),
    most=st.integers(min_value=1, max_value=7),
    most_bytes=st.integers(min_value=1, max_value=100),
)
def test_batches_keep_every_record_in_order_and_both_limits(sizes: list[int], most: int, most_bytes: int) -> None:
    records = [Record(f"é{number}", b"x" * size) for number, size in enumerate(sizes)]

    grouped = list(batches(records, most=most, most_bytes=most_bytes, linger=1, clock=Clock()))

    assert list(itertools.chain(*grouped)) == records
    for batch in grouped:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(size_of(record) for record in batch) <= most_bytes


def test_a_full_batch_leaves_before_the_next_record_is_asked_for() -> None:
    def source() -> Iterator[Record]:
        yield from [Record("1", b"a"), Record("1", b"b")]
        pytest.fail("asked for a third")

    assert next(batches(source(), most=2, most_bytes=100, linger=1, clock=Clock())) == [
        Record("1", b"a"),
        Record("1", b"b"),
    ]


def test_records_of_a_slow_source_do_not_wait_for_a_full_batch() -> None:
    clock = Clock()
    records = (Record("35", str(number).encode()) for number in paced(range(10), 2, clock=clock, sleep=clock.sleep))

    grouped = list(batches(records, most=500, most_bytes=1_000, linger=0.25, clock=clock))

    assert max(map(len, grouped)) <= 2


def test_the_size_of_a_record_counts_bytes_not_characters() -> None:
    assert size_of(Record("é", b"123")) == 5


def test_pauses_grow_up_to_five_seconds() -> None:
    pauses = [backoff(attempt, Random(5)) for attempt in range(1, 13)]

    assert 0.05 <= pauses[0] <= 0.1
    assert pauses[:5] == sorted(pauses[:5])
    assert 2.5 <= pauses[-1] <= 5


# Lines of a file


def test_lines_come_as_they_are_broken_and_blank_ones_too(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b'{"a": 1}\n\n\xff\xfe\r\n {cut\n\nlast')

    assert list(lines(tmp_path / "input")) == [b'{"a": 1}', b"", b"\xff\xfe\r", b" {cut", b"", b"last"]


@given(payloads=st.lists(st.binary(max_size=20).filter(lambda payload: b"\n" not in payload)))
@settings(deadline=None)
def test_what_is_written_as_lines_is_read_as_it_was(tmp_path_factory: Any, payloads: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("lines") / "records"

    FilePublisher(path).publish(Record("35", payload) for payload in payloads)

    assert list(lines(path)) == payloads


def test_records_in_a_file_of_events_have_their_users_as_keys(tmp_path: Path) -> None:
    records = list(itertools.islice(Shoppers(1).records(), 100))

    FilePublisher(tmp_path / "events").publish(records)

    assert list(records_in(tmp_path / "events")) == records


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (b'{"user_id": "35"}', "35"),
        (b'{"user_id":"35"', "35"),
        (b'{"timestamp": \xff, "user_id" : "35", "pix', "35"),
        (b'{"user_id": 35}', "35"),
        (b'{"user_id": "a\\"b\\u00e9"}', 'a"bé'),
        ('{"user_id": "é"}'.encode(), "é"),
    ],
)
def test_the_user_of_a_broken_event_is_still_its_key(payload: bytes, key: str) -> None:
    assert key_for(payload) == key


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b'{"user_id": ""}',
        b'{"user_id": null}',
        b'{"user_id": "\xff"}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "\\x"}',
        b'{"user_id": "' + b"x" * 257 + b'"}',
        b'{"user_id": ' + b"9" * 5_000 + b"}",
    ],
)
def test_a_record_without_a_usable_user_gets_a_hash_for_a_key(payload: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{32}", key_for(payload))
    assert key_for(payload) == key_for(bytes(payload))
    assert key_for(payload) != key_for(payload + b" ")


@given(payload=st.binary(max_size=50) | st.binary(max_size=30).map(lambda inside: b'{"user_id": "' + inside + b'"}'))
def test_any_bytes_get_a_key_that_kinesis_takes(payload: bytes) -> None:
    key = key_for(payload)

    assert 1 <= len(key) <= 256
    assert key.encode()
