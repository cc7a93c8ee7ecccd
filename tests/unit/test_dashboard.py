"""What the dashboard sums up, against the same counted in plain Python; and what it keeps out of the page."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest

from analytics.dashboard.answers import LARGEST, PERIODS, ROWS, Answers, answers
from analytics.dashboard.page import page
from analytics.dashboard.server import Counts, DashboardServer
from cli.servers import PROJECT
from clickstream.errors import Refused, Unavailable
from connectors.geo_mmdb import Mmdb
from connectors.lake import Lake
from tests.shop_lake import COORDINATES, EVIL, Click, clicks, counted, funnel, write, write_geo

MADE = clicks()


def locate(_: Sequence[str], city: str) -> tuple[float, float] | None:
    return COORDINATES.get(city)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("shop") / "it's a lake"))
    write(lake, MADE)
    return lake


@pytest.fixture(scope="module")
def summed(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return answers(lake, tmp_path_factory.mktemp("scratch"), locate)


def total(rows: list[list[int]], *places: int) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for row in rows:
        found[tuple(row[place] for place in places)] += row[-1]
    return found


def test_sums_are_what_plain_python_counts(summed: Answers) -> None:
    events = {(summed.events[e],): n for (e,), n in total(summed.by_event.rows, 2).items()}
    states = {summed.states[s]: n for (s,), n in total(summed.by_state.rows, 2).items()}
    regions = {summed.regions[r]: n for (r,), n in total(summed.by_region.rows, 3).items()}
    cities = {summed.cities[c][:3]: n for (c,), n in total(summed.by_city.rows, 3).items()}
    actions = {
        (summed.customers[c][0], summed.events[e]): n for (e, c), n in total(summed.by_customer.rows, 2, 3).items()
    }

    assert events == {(name,): n for name, n in counted(MADE, "event").items()}
    assert states == counted(MADE, "state")
    assert regions == counted(MADE, "region")
    assert cities == counted(MADE, "city")
    assert actions == counted(MADE, "customer")


def test_sums_by_day_and_country_are_too(summed: Answers) -> None:
    found = {
        (summed.periods[p], summed.countries[c], summed.events[e]): n
        for (p, c, e), n in total(summed.by_event.rows, 0, 1, 2).items()
    }

    assert found == Counter((click.day, click.place[0] or "unknown", click.event) for click in MADE)


def test_the_funnel_counts_sessions_as_plain_python_does(summed: Answers) -> None:
    depths = total(summed.by_depth.rows, 2)

    reached = [sum(n for (depth,), n in depths.items() if depth >= step) for step in range(5)]

    assert reached == funnel(MADE)
    assert reached[4] > 0


def test_the_largest_come_first_and_cities_have_coordinates_where_they_are_known(summed: Answers) -> None:
    cities = total(summed.by_city.rows, 3)

    assert [place for (place,) in sorted(cities, key=lambda key: -cities[key])] == list(range(len(summed.cities)))
    assert {city[2]: city[3:] for city in summed.cities} == {**COORDINATES, "Edinburgh": (None, None)}
    assert dict(summed.customers) == {"1": "Ada Lovelace", "2": EVIL, "3": "美咲", "4": ""}


def test_coordinates_come_from_the_geo_database_by_addresses_of_the_city(tmp_path: Path, lake: Lake) -> None:
    write_geo(tmp_path / "places.mmdb")
    with closing(Mmdb(tmp_path / "places.mmdb")) as places:
        found = answers(lake, tmp_path, places.coordinates)

        assert {city[2]: city[3:] for city in found.cities} == {**COORDINATES, "Edinburgh": (None, None)}
        assert places.coordinates(["8.8.0.1"], "Springfield") is None  # a row older than the database, say
        assert places.coordinates(["no address"], "Chicago") is None
        assert places.coordinates(["fdc5:71c4::1", "8.8.0.1"], "Chicago") == COORDINATES["Chicago"]


def test_many_days_countries_and_customers_stay_small(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    first = datetime(2025, 1, 1, tzinfo=UTC)
    made = []
    for number in range(4000):
        at = first + timedelta(hours=4 * number)
        country = chr(65 + number % 26) + chr(65 + number // 26 % 26)
        made.append(Click(f"{at:%Y-%m-%d}", at, "1", "Search", (country, "r", f"c{number}"), f"{number:05d}"))
    write(lake, made)

    found = answers(lake, tmp_path / "scratch", locate)

    assert found.unit == "month"
    assert len(found.periods) <= PERIODS
    assert len(found.countries) == 41
    assert found.countries[-1] == "other"
    assert len(found.cities) == LARGEST
    assert max(len(one.rows) for one in (found.by_region, found.by_city, found.by_customer)) <= ROWS
    assert sum(row[-1] for row in found.by_event.rows) == 4000


def test_an_empty_lake_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no enriched events yet"):
        answers(Lake(str(tmp_path)), tmp_path, locate)


def test_a_file_that_goes_away_meanwhile_is_a_reason_to_try_again(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = lake.files("enriched")
    monkeypatch.setattr(lake, "files", lambda _: [*files, files[0]._replace(path=files[0].path + "-gone")])

    with pytest.raises(Unavailable, match="try again"):
        answers(lake, tmp_path, locate)


def test_nothing_from_clients_is_markup_in_the_page(summed: Answers) -> None:
    text = page(summed, lake="</script>", at=datetime.now(UTC), maps=PROJECT / "node_modules", live=False).decode()

    assert EVIL not in text
    assert "onerror=" in text  # it is there, as data
    assert text.count("<script") == text.count("</script>") == 3
    assert "connect-src 'none'" in text
    assert "unsafe-inline' 'unsafe-eval" not in text


def test_without_the_shapes_of_maps_the_page_says_how_to_get_them(summed: Answers, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Next: clickstream setup"):
        page(summed, lake="", at=datetime.now(UTC), maps=tmp_path, live=False)


def asked(port: int, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_server_answers_this_machine_alone_and_counts_on(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, MADE[:10])
    with DashboardServer(0, lambda: b"a page", Counts(lake)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = server.server_port
        try:
            before = asked(port, "/counts.json")
            write(lake, MADE[10:])
            after = asked(port, "/counts.json")

            assert asked(port, "/?x") == (200, b"a page")
            assert before == (200, b'{"enriched":10,"rejected":0,"raw":0}')
            assert after == (200, b'{"enriched":600,"rejected":0,"raw":0}')
            assert asked(port, "/etc/passwd")[0] == 404
            assert asked(port, "/", host="evil.example")[0] == 403
        finally:
            server.shutdown()
            thread.join()
