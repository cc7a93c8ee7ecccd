"""The page: what is known of the lake, the charts, the shapes of maps and Vega itself, in one file without a network.

What comes from clients (names, regions, event names) is only ever data: it is in the page as JSON in which no `<` is
left, its own script puts it into text alone, and a policy lets no script run but those whose hashes it lists.
"""

import base64
import json
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import vl_convert

from analytics.dashboard.answers import Answers
from analytics.dashboard.charts import charts
from clickstream.errors import Refused

_HERE: Final = Path(__file__).parent
_MAPS: Final = {"states": "us-atlas/states-10m.json", "cities": "world-atlas/land-110m.json"}


def page(answers: Answers, *, lake: str, at: datetime, maps: Path, live: bool) -> bytes:
    """Write the page; a `live` one asks its server how many rows there are by now. `maps` is where npm packages are."""
    made = {"lake": lake, "at": at.isoformat(), "enriched": sum(row[-1] for row in answers.by_event.rows)}
    data = {
        "answers": answers,
        "charts": charts(answers.events),
        "shapes": {name: _shapes(maps / file) for name, file in _MAPS.items()},
        "live": live,
        "made": made,
    }
    vega, script = _vega(), (_HERE / "page.js").read_text()
    parts = {
        "policy": policy([vega, script], live=live),
        "style": (_HERE / "page.css").read_text(),
        "data": msgspec.json.encode(data).decode().replace("<", "\\u003c"),
        "vega": vega,
        "script": script,
    }
    whole = (_HERE / "page.html").read_text()
    return "".join(_filled(whole, parts)).encode()


def policy(scripts: list[str], *, live: bool) -> str:
    """Write the content security policy: these scripts, nothing from elsewhere. Vega compiles its expressions."""
    asks = "'self'" if live else "'none'"
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(one.encode()).digest()).decode()}'" for one in scripts)
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src {asks}; base-uri 'none'; form-action 'none'"
    )


def _filled(template: str, parts: dict[str, str]) -> list[str]:
    """Put the parts into their places, and nothing into the parts."""
    pieces = []
    for name in ("policy", "style", "data", "vega", "script"):
        before, _, template = template.partition("{" + name + "}")
        pieces += [before, parts[name]]
    return [*pieces, template]


@cache
def _vega() -> str:
    """Bundle Vega; half a second, once."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def _shapes(file: Path) -> dict[str, Any]:
    try:
        shapes: dict[str, Any] = json.loads(file.read_bytes())
    except OSError as error:
        raise Refused(f"the shapes of maps are not in {file} ({error.strerror}). Next: clickstream setup") from None
    return shapes
