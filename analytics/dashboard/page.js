"use strict";
// The page's own part: filters its sums, and shows them. All text comes in through textContent, never as markup.

const { answers, charts, shapes, live, made } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const count = (n) => whole.format(n);
const share = (part, of) => (of ? percent.format(part / of) : "–");
const STEPS = ["Search", "ViewContent", "AddToCart", "Purchase"];
const COLOURS = ["--search", "--view", "--cart", "--buy"];
const MOST = { cities: 400, customers: 12, regions: 10 };
const views = {};
let regionNames;
try { regionNames = new Intl.DisplayNames(["en"], { type: "region" }); } catch { regionNames = null; }

function countryName(code) {
  if (!/^[A-Z]{2}$/.test(code) || !regionNames) return code === "other" ? "other countries" : code;
  try { return regionNames.of(code); } catch { return code; }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const eventColour = (place) => colour(COLOURS[place] ?? "--soft");

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== null) made.textContent = text;
  return made;
}

function periodName(place, end = false) {
  const first = new Date(`${answers.periods[place]}T00:00:00Z`);
  const style = { timeZone: "UTC", year: "numeric", month: "short", day: "numeric" };
  if (answers.unit === "month") delete style.day;
  if (answers.unit === "year") return String(first.getUTCFullYear());
  if (answers.unit === "week" && end) first.setUTCDate(first.getUTCDate() + 6);
  return first.toLocaleDateString("en-GB", style);
}

// ------------------------------------------------------------------ filters

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", text, { value })));
}

function setUp() {
  const periods = answers.periods.map((_, place) => place);
  fill(byId("from"), periods.map((place) => [place, periodName(place)]));
  fill(byId("to"), periods.map((place) => [place, periodName(place, true)]));
  const countries = answers.countries.map((code, place) => [place, countryName(code)]);
  countries.sort((one, other) => one[1].localeCompare(other[1]));
  fill(byId("country"), [["", "all countries"], ...countries]);
  byId("events").replaceChildren(...answers.events.map((name, place) => {
    const label = element("label", null);
    label.append(element("input", null, { type: "checkbox", name: "event", value: place }), name);
    return label;
  }));
  everything();
  fromAddress();
  byId("filters").addEventListener("change", () => { toAddress(); show(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", (event) => { event.preventDefault(); everything(); toAddress(); show(); });
  window.addEventListener("hashchange", () => { everything(); fromAddress(); show(); });
}

function everything() {
  byId("from").value = 0;
  byId("to").value = answers.periods.length - 1;
  byId("country").value = "";
  for (const box of boxes()) box.checked = true;
}

const boxes = () => [...byId("events").querySelectorAll("input")];

function chosen() {
  const from = Number(byId("from").value), to = Number(byId("to").value);
  const country = byId("country").value === "" ? null : Number(byId("country").value);
  return {
    from: Math.min(from, to), to: Math.max(from, to), country,
    events: new Set(boxes().filter((box) => box.checked).map((box) => Number(box.value))),
  };
}

// What is chosen is in the page's address, so that it can be sent to somebody, and survives a reload.
function toAddress() {
  const now = chosen(), said = new URLSearchParams();
  if (now.from > 0) said.set("from", answers.periods[now.from]);
  if (now.to < answers.periods.length - 1) said.set("to", answers.periods[now.to]);
  if (now.country !== null) said.set("country", answers.countries[now.country]);
  if (now.events.size < answers.events.length) said.set("events", [...now.events].map((e) => answers.events[e]).join());
  history.replaceState(null, "", String(said) ? `#${said}` : location.pathname + location.search);
}

function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const [id, list] of [["from", answers.periods], ["to", answers.periods], ["country", answers.countries]]) {
    const place = list.indexOf(said.get(id));
    if (place >= 0) byId(id).value = place;
  }
  if (said.has("events")) {
    const named = said.get("events").split(",");
    for (const box of boxes()) box.checked = named.includes(answers.events[box.value]);
  }
}

// ------------------------------------------------------------------ sums

/** Add up a table's counts by one of its columns, as far as they are chosen: a Map from places to counts. */
function total(sums, by, now) {
  const at = Object.fromEntries(sums.columns.map((name, place) => [name, place]));
  const found = new Map();
  for (const row of sums.rows) {
    if (row[at.period] < now.from || row[at.period] > now.to) continue;
    if (now.country !== null && "country" in at && row[at.country] !== now.country) continue;
    if ("event" in at && !now.events.has(row[at.event])) continue;
    const key = row[at[by]];
    found.set(key, (found.get(key) ?? 0) + row[row.length - 1]);
  }
  return found;
}

const sum = (counts) => [...counts.values()].reduce((one, other) => one + other, 0);
const largest = (counts, most) => [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, most);

/** Each customer's actions by event name, those with most first. */
function customers(now) {
  const found = new Map();
  for (const event of now.events) {
    for (const [customer, n] of total(answers.by_customer, "customer", { ...now, events: new Set([event]) })) {
      if (!found.has(customer)) found.set(customer, answers.events.map(() => 0));
      found.get(customer)[event] += n;
    }
  }
  const all = [...found].map(([customer, counts]) => [customer, counts, counts.reduce((a, b) => a + b, 0)]);
  return all.sort((a, b) => b[2] - a[2] || a[0] - b[0]).slice(0, MOST.customers);
}

function sessions(now) {
  const depths = total(answers.by_depth, "depth", now);
  const reached = STEPS.map((_, step) => sum(new Map([...depths].filter(([depth]) => depth > step))));
  return { all: sum(depths), reached };
}

// ------------------------------------------------------------------ showing

/** Put a table in its place: a head, and rows of which the first cell names the row; numbers are right-aligned. */
function table(id, caption, head, rows) {
  const made = element("table", null);
  made.append(element("caption", caption, { className: id === "funnel" ? "" : "unseen" }));
  const names = element("tr", null);
  head.forEach((name, place) => names.append(element("th", name, { scope: "col", className: place ? "number" : "" })));
  made.createTHead().append(names);
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((cell, place) => {
      const isNode = cell instanceof Node;
      const td = element(place ? "td" : "th", isNode ? null : typeof cell === "number" ? count(cell) : cell,
        { className: place ? "number" : "" });
      if (!place) td.scope = "row";
      if (isNode) td.append(cell);
      row.append(td);
    });
  }
  document.querySelector(`[data-table="${id}"]`).replaceChildren(made);
}

function swatch(name, background) {
  const cell = document.createDocumentFragment();
  const square = element("span", null, { className: "swatch" });
  square.style.background = background;
  cell.append(square, name);
  return cell;
}

function config() {
  const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
  return {
    background: null, aria: false, font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: { labelColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12 },
    axisX: { labelColor: soft }, axisY: { grid: false, ticks: false, domain: false, labelPadding: 6 },
    legend: { labelColor: soft, labelFontSize: 12 },
    text: { color: ink, fontSize: 12 },
    bar: { fill: colour("--search"), color: colour("--search") },
    geoshape: { stroke: colour("--card") },
    range: { category: answers.events.map((_, place) => eventColour(place)),
      ramp: [colour("--low"), colour("--high")], heatmap: [colour("--low"), colour("--high")] },
  };
}

/** How high a chart is: of its own height, or so much for each of its rows. */
function height(id, rows) {
  const each = charts[id].usermeta?.row_height;
  return each ? each * Math.max(rows.length, 1) : charts[id].height;
}

/** Draw a chart, or give the one that is drawn its new rows. */
async function draw(id, rows, label) {
  byId(id).setAttribute("aria-label", label);
  if (views[id]) {
    const view = await views[id];
    await view.height(height(id, rows)).data("rows", rows).runAsync();
    return;
  }
  const params = ["land", "point", "card"].map((name) => ({ name, value: colour(`--${name}`) }));
  const spec = { ...charts[id], height: height(id, rows), params, config: config(), datasets: { rows, ...(shapes[id] ? { shapes: shapes[id] } : {}) } };
  const host = element("div", null); // Vega gives it a role of its own; to a reader the picture is the element around it
  byId(id).replaceChildren(host);
  const how = { actions: false, renderer: "svg", logLevel: 1 }; // errors; no rows, say, is nothing to warn of
  views[id] = vegaEmbed(host, spec, how).then((done) => done.view);
  await views[id];
}

const named = (pairs) => pairs.map(([name, n]) => `${name} ${count(n)}`).join(", ");

async function show() {
  const now = chosen();
  const events = total(answers.by_event, "event", now), all = sum(events);
  const periods = now.from === now.to && answers.unit === "day" ? periodName(now.from)
    : `${periodName(now.from)} to ${periodName(now.to, true)}`;
  const where = now.country === null ? "all countries" : countryName(answers.countries[now.country]);
  const which = now.events.size === answers.events.length ? "all events"
    : [...now.events].map((event) => answers.events[event]).join(", ") || "no events";
  byId("summary").textContent = `${count(all)} events: ${periods}, ${where}, ${which}.`;

  const { all: visits, reached } = sessions(now);
  const countries = total(answers.by_event, "country", now).size;
  byId("figures").replaceChildren(...[
    ["Events", count(all)], ["Sessions", count(visits)],
    ["Searches that end in a Purchase", share(reached[3], reached[0])],
    ["Countries", answers.countries.includes("other") && now.country === null ? `${countries - 1}+` : count(countries)],
  ].map(([name, value]) => {
    const figure = element("div", null);
    figure.append(element("dt", name), element("dd", value));
    return figure;
  }));

  const byName = answers.events.map((name, place) => ({ place, name, count: events.get(place) ?? 0 }))
    .map((row) => ({ ...row, share: all ? row.count / all : 0 }));
  table("donut", "Events by name", ["Event", "Events", "Share"],
    byName.map((row) => [swatch(row.name, eventColour(row.place)), row.count, share(row.count, all)]));

  table("funnel", `Of ${count(visits)} sessions`, ["Step", "Sessions", "Of the step before", "Of the first"],
    STEPS.map((name, step) => {
      const cell = element("span", name);
      const bar = element("span", null, { className: "bar" });
      bar.style.width = `${reached[0] ? (100 * reached[step]) / reached[0] : 0}%`;
      bar.style.background = eventColour(answers.events.indexOf(name));
      bar.setAttribute("aria-hidden", "true");
      cell.append(bar);
      return [cell, reached[step], step ? share(reached[step], reached[step - 1]) : "", share(reached[step], reached[0])];
    }));

  const us = answers.countries.indexOf("US");
  const isUs = now.country === null || now.country === us;
  const byState = isUs ? largest(total(answers.by_state, "state", now), Infinity) : [];
  const states = byState.map(([state, n]) => [answers.states[state], n]);
  const known = sum(new Map(states)), requests = us < 0 ? known : sum(total(answers.by_event, "event", { ...now, country: us }));
  byId("states-note").textContent = isUs
    ? `${count(known)} requests; of ${count(Math.max(0, requests - known))} more from the US the state is not known.`
    : `No request from ${where} is from a US state.`;
  table("states", "Requests by US state", ["State", "Requests"], states);

  const cities = largest(total(answers.by_city, "city", now), MOST.cities).map(([city, n]) => {
    const [country, region, name, lat, lon] = answers.cities[city];
    return { place: [name, region === name ? "" : region, countryName(country)].filter(Boolean).join(", "), count: n, lat, lon };
  });
  const placed = cities.filter((city) => city.lat !== null);
  byId("cities-note").textContent = `The ${count(cities.length)} cities with most requests`
    + (placed.length < cities.length ? `, of which ${count(cities.length - placed.length)} have no known coordinates.` : ".");
  table("cities", "Requests by city", ["City", "Requests"], cities.map((city) => [city.place, city.count]));

  const regions = largest(total(answers.by_region, "region", now), MOST.regions).map(([region, n]) => ({
    region: `${answers.regions[region][1]}, ${answers.regions[region][0]}`, count: n }));
  table("regions", "Top 10 regions by requests", ["Region", "Requests"], regions.map((one) => [one.region, one.count]));

  const active = customers(now);
  table("customers", "Customers with most actions", ["Customer", ...answers.events, "All"],
    active.map(([customer, counts, n]) => {
      const [id, name] = answers.customers[customer];
      return [name ? `${name} (${id})` : id, ...counts, n];
    }));
  byId("customers-note").textContent = `The ${count(active.length)} with most actions, chosen from the`
    + ` ${count(answers.customers.length)} most active of all.`;

  await Promise.all([
    draw("donut", byName, `Donut of ${count(all)} events by name: ${named(byName.map((row) => [row.name, row.count]))}.`),
    draw("states", states.map(([state, n]) => ({ state, count: n })),
      `Map of the US, ${states.length} states filled by requests. Most: ${named(states.slice(0, 3)) || "none"}.`),
    draw("cities", placed,
      `Map of the world with ${placed.length} cities. Most: ${named(cities.slice(0, 3).map((c) => [c.place, c.count])) || "none"}.`),
    draw("regions", regions, `Bars of the top regions: ${named(regions.map((one) => [one.region, one.count])) || "none"}.`),
  ]);
  document.documentElement.dataset.shown = String(Number(document.documentElement.dataset.shown ?? 0) + 1);
}

// ------------------------------------------------------------------ live

const seen = [];

async function follow() {
  try {
    const answer = await fetch("counts.json", { cache: "no-store" });
    const counts = await answer.json();
    seen.push([performance.now() / 1000, counts.enriched + counts.rejected]);
    if (seen.length > 6) seen.shift();
    const [[start, first], [end, last]] = [seen[0], seen[seen.length - 1]];
    const rate = end > start ? Math.max(0, (last - first) / (end - start)) : 0;
    for (const cell of byId("live").querySelectorAll("dd")) {
      const name = cell.dataset.count;
      cell.textContent = count(name === "rate" ? Math.round(rate) : counts[name]);
    }
    const more = counts.enriched - made.enriched;
    byId("newer").hidden = more === 0;
    byId("newer").textContent = more > 0 ? `Show ${count(more)} more` : "Show what has changed";
  } catch {
    for (const cell of byId("live").querySelectorAll("dd")) cell.textContent = "–";
  }
  setTimeout(follow, 2000);
}

setUp();
byId("about").textContent = `${count(made.enriched)} events of ${made.lake}, as of ${made.at.slice(0, 16).replace("T", " ")} UTC`;
show();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", async () => {
  for (const id of Object.keys(views)) { (await views[id]).finalize(); delete views[id]; }
  show();
});
if (live) {
  byId("live").hidden = false;
  byId("newer").addEventListener("click", () => location.reload());
  follow();
}
