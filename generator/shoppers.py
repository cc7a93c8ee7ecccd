"""What shoppers do: they search, view, add to the cart and buy, fewer at each step, many of them at a time."""

import csv
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from connectors.customers import COLUMNS, Customer
from generator.people import Shopper, people, seeded
from generator.records import Record

# What follows an event: the first whose number is above a draw from 0 to 1; above them all, the visit is over.
_NEXT: Final = {
    "Search": ((0.66, "ViewContent"), (0.84, "Search")),
    "ViewContent": ((0.22, "AddToCart"), (0.52, "ViewContent"), (0.74, "Search")),
    "AddToCart": ((0.45, "Purchase"), (0.65, "ViewContent"), (0.75, "Search")),
    "Purchase": ((0.10, "Search"),),
}
_HEAD: Final = 10  # so many of the most popular are about equally popular
_ON_THE_PHONE: Final = 0.3  # the share of visits, for those who have one
_PRODUCT_IDS: Final = range(100_000, 1_000_000)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Click(NamedTuple):
    """What an event says besides when; `tenths` of a percent viewed, `product` as its two JSON fields."""

    person: Shopper
    address: str
    event_name: str
    seconds: int
    tenths: int
    product: str


class Shoppers:
    """Endless clicks of `users` people on `products` products, the same bytes for the same arguments.

    The shoppers' clock starts at `start` (now if not given, UTC if naive) and runs at `per_second` clicks a second
    whatever the real time is: publish at that rate and events stay near the present, faster and they come from the
    future. A tenth of the people shop at a time, so the fewer they are for the rate, the faster they live. Memory
    grows with users and products, not with clicks. Who the people are depends on the seed alone.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        users: int = 1_000,
        products: int = 5_000,
        start: datetime | None = None,
        per_second: float = 100.0,
        chapter: int = 0,
    ) -> None:
        if users < 1 or not 1 <= products <= len(_PRODUCT_IDS) or not per_second > 0:
            raise ValueError("shoppers need users, 1 to 900,000 products (ids have six digits) and a rate above 0")
        start = start or datetime.now(UTC)
        self.start = start if start.tzinfo else start.replace(tzinfo=UTC)
        self._seed = seed
        self._clicks_of = f"clicks {chapter}" if chapter else "clicks"
        self._step = 1_000_000 / per_second  # microseconds from one click to the next
        self._people = people(seed, users)
        self._products = _products(seed, products)
        self._favourites = seeded(seed, "favourites").sample(range(users), users)  # by number, most popular first

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each event as a dict, which `json.dumps` writes as the very bytes of `records()`."""
        for record in self.records():
            yield json.loads(record.payload)

    def customers(self) -> Iterator[Customer]:
        """Yield a row for everyone but the shoppers, about one in twenty, who never signed up."""
        for person in self._people:
            if person.signed_up:
                price = Decimal(str(person.price_per_click))
                yield Customer(person.user_id, person.pixel_id, person.name, price)

    def records(self) -> Iterator[Record]:
        """Yield each event as JSON under its `user_id`, without end, from the start at each call.

        The JSON is written by hand, since benchmarks wait for it; numbers look as a browser writes them.
        """
        rng = seeded(self._seed, self._clicks_of)
        random, bits = rng.random, rng.getrandbits
        start = (self.start - _EPOCH) // timedelta(microseconds=1)
        for number, (person, address, event_name, seconds, tenths, product) in enumerate(self._clicks(rng)):
            at = start + int((number + random()) * self._step)
            click_id = bits(128) & ~(0xF << 76 | 0x3 << 62) | (0x4 << 76 | 0x2 << 62)  # a random UUID's fixed bits
            payload = (
                f'{{"timestamp": "{_moment(at)}", "user_id": "{person.user_id}", "pixel_id": "{person.pixel_id}", '
                f'"click_id": "{click_id:032x}", "insertion_timestamp": "{_moment(at + 8 + int(random() * 40))}", '
                f'"event_name": "{event_name}", "user_ip": "{address}", "additional_data": {{'
                f'"time_on_data": {seconds}, "percent_viewed": {_PERCENT[tenths]}, {product}}}}}'
            )
            yield Record(person.user_id, payload.encode())

    def _clicks(self, rng: Random) -> Iterator[_Click]:
        """Interleave visits: whoever is done with a page clicks next, and who leaves makes room for someone else."""
        inside: set[int] = set()
        visits: list[tuple[float, int, Iterator[_Click]]] = []
        for _ in range(max(1, len(self._people) // 10)):
            user = self._newcomer(inside, rng)
            visits.append((rng.uniform(0, 60), user, self._visit(self._people[user], rng)))
        heapify(visits)
        while True:
            due, user, visit = visits[0]
            click = next(visit, None)
            if click:
                yield click
                heapreplace(visits, (due + click.seconds, user, visit))
            else:
                inside.remove(user)
                user = self._newcomer(inside, rng)
                heapreplace(visits, (due, user, self._visit(self._people[user], rng)))

    def _newcomer(self, inside: set[int], rng: Random) -> int:
        """Pick someone who is not there yet, popular ones first; at most a tenth is, so a few draws do."""
        while (user := self._favourites[_popular(len(self._people), rng)]) in inside:
            pass
        inside.add(user)
        return user

    def _visit(self, person: Shopper, rng: Random) -> Iterator[_Click]:
        """Follow one person from a search to a purchase, or to wherever they lose interest."""
        at_home = rng.random() >= _ON_THE_PHONE
        address = person.addresses[0 if at_home else -1]
        event_name: str | None = "Search"
        product = self._products[_popular(len(self._products), rng)]
        while event_name:
            tenths = int(1000 * rng.random() ** 1.432 + 0.5)  # above 60 % three times in ten
            seconds = 1 + int(tenths * 0.18 * (0.5 + rng.random()))  # who reads on, stays longer
            yield _Click(person, address, event_name, seconds, tenths, product)
            following = _following(event_name, rng.random() * (1.5 - tenths / 1000))  # and is likelier to buy
            if following == "Search" or (following == "ViewContent" and event_name != "Search"):
                product = self._products[_popular(len(self._products), rng)]
            event_name = following


def write_customers(customers: Iterable[Customer], path: Path) -> None:
    """Write the users table as CSV in UTF-8 with a header, replacing the file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(astuple(customer) for customer in customers)


def _following(event_name: str, draw: float) -> str | None:
    for limit, following in _NEXT[event_name]:
        if draw < limit:
            return following
    return None


def _popular(count: int, rng: Random) -> int:
    """Draw a rank below `count`, 0 the most popular; its chance goes with 1 / (rank + 10), Zipf-Mandelbrot's law."""
    return min(int(_HEAD * (1 + count / _HEAD) ** rng.random()) - _HEAD, count - 1)


def _products(seed: int, count: int) -> list[str]:
    """Return each product's two JSON fields, most popular first; its price, 1 to 5,000 dollars, never changes."""
    rng = seeded(seed, "products")
    prices = (min(max(rng.lognormvariate(4.2, 1.1), 1.0), 5000.0) for _ in range(count))
    ids = rng.sample(_PRODUCT_IDS, count)
    return [
        f'"product_id": {id_}, "price": {_number(round(price * 100), 100)}'
        for id_, price in zip(ids, prices, strict=True)
    ]


def _number(units: int, per_one: int) -> str:
    """Write `units / per_one` as a browser does: 39.7, but 87 and not 87.0."""
    return str(units // per_one if units % per_one == 0 else units / per_one)


_PERCENT: Final = [_number(tenths, 10) for tenths in range(1001)]


def _moment(micros: int) -> str:
    second, fraction = divmod(micros, 1_000_000)
    return f"{_second(second)}.{fraction:06d}"


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
