"""The dashboard in a real browser: its charts, its numbers, its filters, on a phone, in the dark, without a network."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from typer.testing import CliRunner

from cli.main import app
from cli.servers import program
from connectors.lake import Lake
from tests.shop_lake import EVIL, clicks, counted, funnel, write, write_geo

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
MADE = clicks()
PATIENCE = 60_000  # ms; a bound, not a claim
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop") / "lake"
    write(Lake(str(root)), MADE)
    write_geo(root.with_name("places.mmdb"))
    return root


@pytest.fixture(scope="module")
def exported(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "page.html"
    done = CliRunner().invoke(
        app, ["dashboard", "--lake", str(lake), "--geo", str(lake.with_name("places.mmdb")), "--export", str(path)]
    )
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=program("chromium", "apt-get install chromium"),
            headless=True,
            args=FLAGS,
        )
        context.set_default_timeout(PATIENCE)
        yield context
        context.close()


class Seen:
    """What a page does that it should not: errors in its console, and requests to anywhere but its own server."""

    def __init__(self, page: Page, home: str) -> None:
        self.troubles: list[str] = []
        page.on("console", lambda said: self.troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda one: None if one.url.startswith((home, "data:", "blob:")) else self._went(one.url))
        page.on("websocket", lambda one: self._went(one.url))

    def _went(self, url: str) -> None:
        self.troubles.append(f"request to {url}")


@pytest.fixture
def page(browser: BrowserContext, exported: Path) -> Iterator[Page]:
    """The exported page, opened from its file; a test ends well only if the page had no trouble and asked nobody."""
    opened = browser.new_page()
    seen = Seen(opened, exported.as_uri())
    opened.emulate_media(color_scheme="light")
    opened.set_viewport_size({"width": 1280, "height": 900})
    go(opened, exported.as_uri())
    yield opened
    assert seen.troubles == []
    assert opened.title() == "Clickstream"  # what a name with a script in it would have changed
    opened.close()


def go(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_function("document.documentElement.dataset.shown")


def changing(page: Page, do: Any) -> None:
    """Do something that shows the page anew, and wait until it has."""
    before = int(page.evaluate("document.documentElement.dataset.shown"))
    do()
    page.wait_for_function(f"Number(document.documentElement.dataset.shown) > {before}")


def rows(page: Page, table: str) -> dict[str, list[str]]:
    """The cells of a table by the head of their row, also of one that is folded away."""
    found = page.locator(f'[data-table="{table}"] tbody tr').evaluate_all(
        "all => all.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return {name: cells for name, *cells in found}


def number(text: str) -> int:
    return int(text.replace(",", ""))


def shapes(page: Page, chart: str, kind: str) -> Locator:
    return page.locator(f"#{chart} svg .{kind} path")


def test_each_picture_is_there_with_as_many_shapes_as_it_has_rows(page: Page) -> None:
    assert shapes(page, "donut", "mark-arc").count() == 4
    assert shapes(page, "states", "mark-shape").count() == 56
    assert shapes(page, "regions", "mark-rect").count() == len(counted(MADE, "region"))
    assert rows(page, "cities").keys() == {
        "Chicago, Illinois, United States",
        "San Jose, California, United States",
        "London, England, United Kingdom",
        "Edinburgh, Scotland, United Kingdom",
        f"{EVIL}, Bavaria, Germany",
    }
    assert shapes(page, "cities", "mark-symbol").count() == 4
    expect(page.locator("#cities-note")).to_contain_text("1 have no known coordinates")
    fills = shapes(page, "states", "mark-shape").evaluate_all(
        "all => new Set(all.map(one => one.getAttribute('fill'))).size"
    )
    assert fills == 3  # Illinois, California, and those without a request


def test_their_numbers_are_those_that_plain_python_counts(page: Page) -> None:
    events, actions, reached = counted(MADE, "event"), counted(MADE, "customer"), funnel(MADE)

    assert {name: number(cells[0]) for name, cells in rows(page, "donut").items()} == events
    assert {name: number(cells[0]) for name, cells in rows(page, "states").items()} == counted(MADE, "state")
    regions = {f"{region}, {country}": n for (country, region), n in counted(MADE, "region").items()}
    assert {name: number(cells[0]) for name, cells in rows(page, "regions").items()} == regions
    assert sum(number(cells[0]) for cells in rows(page, "cities").values()) == counted(MADE, "city").total()
    assert [number(cells[0]) for cells in rows(page, "funnel").values()] == reached[1:]
    found = rows(page, "customers")
    assert set(found) == {"Ada Lovelace (1)", f"{EVIL} (2)", "美咲 (3)", "4"}
    for name, cells in found.items():
        user = name.rpartition("(")[2].rstrip(")")
        assert [number(cell) for cell in cells[:4]] == [
            actions[user, event] for event in ("Search", "ViewContent", "AddToCart", "Purchase")
        ]
    figures = page.locator("#figures dd").all_text_contents()
    assert figures[:2] == [str(len(MADE)), str(reached[0])]


def test_charts_draw_what_the_tables_say(page: Page) -> None:
    widths = shapes(page, "regions", "mark-rect").evaluate_all("all => all.map(one => one.getBBox().width)")
    counts = [number(cells[0]) for cells in rows(page, "regions").values()]

    assert [round(width / widths[0], 2) for width in widths] == [round(count / counts[0], 2) for count in counts]


def test_filters_by_date_country_and_event_change_every_picture(page: Page) -> None:
    changing(page, lambda: page.locator("#from").select_option(label="22 Nov 2026"))
    changing(page, lambda: page.locator("#to").select_option(label="22 Nov 2026"))
    changing(page, lambda: page.locator("#country").select_option(label="United States"))
    changing(page, lambda: page.get_by_role("checkbox", name="Search").uncheck())

    some = [c for c in MADE if c.day == "2026-11-22" and c.place[0] == "US" and c.event != "Search"]
    events = Counter(dict.fromkeys(counted(MADE, "event"), 0))
    events.update(counted(some, "event"))
    assert {name: number(cells[0]) for name, cells in rows(page, "donut").items()} == dict(events)
    assert {name: number(cells[0]) for name, cells in rows(page, "states").items()} == counted(some, "state")
    assert {name: number(cells[0]) for name, cells in rows(page, "regions").items()} == {
        f"{region}, {country}": n for (country, region), n in counted(some, "region").items()
    }
    assert sum(number(cells[4]) for cells in rows(page, "customers").values()) == len(some)
    assert shapes(page, "regions", "mark-rect").count() == len(counted(some, "region"))
    expect(page.get_by_role("status")).to_have_text(
        f"{len(some)} events: 22 Nov 2026, United States, ViewContent, AddToCart, Purchase."
    )

    changing(page, lambda: page.get_by_role("button", name="All").click())

    assert {name: number(cells[0]) for name, cells in rows(page, "donut").items()} == counted(MADE, "event")
    assert "#" not in page.url


def test_what_is_chosen_is_in_the_address_and_comes_back_with_it(page: Page, exported: Path) -> None:
    changing(page, lambda: page.locator("#country").select_option(label="Germany"))
    address = page.url
    shown = rows(page, "donut")

    page.goto("about:blank")
    go(page, address)

    assert address.endswith("#country=DE")
    assert rows(page, "donut") == shown
    assert page.locator("#country").input_value() != ""


def test_nothing_chosen_is_nothing_shown_and_no_error(page: Page) -> None:
    for name in ("Search", "ViewContent", "AddToCart", "Purchase"):
        changing(page, lambda name=name: page.get_by_role("checkbox", name=name).uncheck())

    assert {cells[0] for cells in rows(page, "donut").values()} == {"0"}
    assert rows(page, "states") == rows(page, "customers") == {}


def test_names_of_clients_are_text(page: Page) -> None:
    assert page.locator("main script, main img").count() == 0
    assert page.locator('[data-table="customers"]').inner_text().count(EVIL) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_also_in_the_dark(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.wait_for_function("document.querySelector('#states svg')?.getBoundingClientRect().width < 360")

    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    small = page.locator("select, button, #events label").evaluate_all(
        "all => all.filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 32).length"
    )
    assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(page: Page, scheme: Any) -> None:
    changing(page, lambda: page.emulate_media(color_scheme="dark"))
    if scheme == "light":
        changing(page, lambda: page.emulate_media(color_scheme="light"))

    faint = page.evaluate(CONTRAST)

    assert faint == []


CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const one of document.querySelectorAll("body *:not(script):not(style)")) {
    const isText = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!isText || !one.checkVisibility()) continue;
    const inPicture = one.closest("svg");
    const own = numbers(inPicture ? getComputedStyle(one).fill : getComputedStyle(one).color);
    const [a, b] = [light(own), light(behind(inPicture ?? one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${one.textContent} ${ratio.toFixed(2)}`);
  }
  return faint;
}"""


def test_a_screen_reader_finds_pictures_with_words_tables_with_heads_and_named_controls(page: Page) -> None:
    for name in ("donut", "states", "cities", "regions"):
        label = page.locator(f"#{name}").get_attribute("aria-label") or ""
        assert page.locator(f"#{name}").get_attribute("role") == "img"
        assert re.search(r"\d", label), label
    assert page.get_by_role("img", name=re.compile("^Donut of 600 events by name: Search ")).count() == 1
    assert page.get_by_role("heading", level=1).all_text_contents() == ["Clickstream"]
    assert page.get_by_role("heading", level=2).count() == 6
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th:not([scope=col])").count() == 0
        assert table.locator("tbody th:not([scope=row])").count() == 0
    for control in page.locator("select, input").all():
        assert control.evaluate("one => one.labels.length") == 1
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_keyboard_reaches_everything_beginning_with_a_way_past_the_filters(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip the filters"

    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))

    assert reached[:3] == ["from", "to", "country"]
    assert reached.count("INPUT") == 4
    assert reached.count("SUMMARY") >= 3


def test_the_served_page_counts_on_while_rows_are_committed(browser: BrowserContext, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write(lake, MADE[:200])
    command = [sys.executable, "-m", "cli.main", "dashboard", "--lake", str(tmp_path / "lake")]
    log = tmp_path / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as server:
        try:
            deadline = time.monotonic() + 120
            while not (url := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            page = browser.new_page()
            seen = Seen(page, url[0])
            go(page, url[0])
            enriched = page.locator('#live [data-count="enriched"]')
            expect(enriched).to_have_text("200", timeout=PATIENCE)
            assert not page.locator("#newer").is_visible()

            write(lake, MADE[200:])
            expect(enriched).to_have_text("600", timeout=PATIENCE)
            page.get_by_role("button", name="Show 400 more").click()
            expect(page.locator("#summary")).to_contain_text("600 events", timeout=PATIENCE)

            assert {name: number(cells[0]) for name, cells in rows(page, "donut").items()} == counted(MADE, "event")
            assert seen.troubles == []
            page.close()
            server.terminate()

            assert server.wait(60) == 0
            assert "stopped" in log.read_text()
        finally:
            server.kill()


def test_the_exported_file_is_one_small_file_of_its_own(exported: Path) -> None:
    text = exported.read_text()

    assert exported.stat().st_size < 2_000_000
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=[\"']?http", text)
    assert json.loads(text.partition('<script id="data" type="application/json">')[2].partition("</script>")[0])
