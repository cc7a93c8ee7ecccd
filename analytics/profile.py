"""How good the data of a lake is, hour by hour, and which limits it breaks."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from analytics.local import LocalLake
from clickstream.errors import Refused
from clickstream.place import Status

Share = Annotated[float, Meta(ge=0, le=1)]

# Hashes of origins and clicks, not the texts: of ten million, two are taken for one with a chance of one in 300,000.
_EVENTS: Final = f"""
  SELECT
    {{hour}} AS hour,
    count(*) AS enriched,
    count(*) - count(DISTINCT hash(click_id)) AS repeated_clicks,
    count(*) FILTER (geo_status IS DISTINCT FROM '{Status.FOUND}') AS unknown_places,
    count(*) FILTER (name_status IS DISTINCT FROM '{Status.FOUND}') AS unknown_names
  FROM enriched WHERE {{days}} GROUP BY ALL
"""
_REASONS: Final = "SELECT {hour} AS hour, reason, count(*) FROM rejected WHERE {days} GROUP BY ALL ORDER BY 3 DESC, 2"
_OUT: Final = "SELECT {hour} AS hour, hash(shard_id, sequence_number) AS origin FROM {table} WHERE {days}"
_OF_ORIGINS: Final = """
  SELECT hour, count(*) AS records, count(DISTINCT origin) AS origins FROM ({out}) GROUP BY hour
"""
_HOURS: Final = """
  SELECT
    coalesce(out.hour, archived.hour),
    coalesce(enriched, 0), coalesce(rejected.records, 0), coalesce(suppressed.records, 0), archived.records,
    out.origins, archived.origins, coalesce(out.records - out.origins, 0),
    coalesce(repeated_clicks, 0), coalesce(unknown_places, 0), coalesce(unknown_names, 0)
  FROM ({out}) AS out
  FULL JOIN ({archived}) AS archived ON archived.hour = out.hour
  LEFT JOIN ({events}) AS events ON events.hour = out.hour
  LEFT JOIN ({rejected}) AS rejected ON rejected.hour = out.hour
  LEFT JOIN ({suppressed}) AS suppressed ON suppressed.hour = out.hour
  ORDER BY 1
"""
_HOUR: Final = "year || '-' || month || '-' || day || ' ' || hour"
_DAYS: Final = "year || '-' || month || '-' || day BETWEEN $since AND $until"


class Hour(Struct, kw_only=True):
    """One hour of arrival (UTC): counts, and what they say. A share is None where there is nothing to take it of."""

    hour: str
    enriched: int
    rejected: int
    suppressed: int
    raw: int | None  # None where the job does not archive
    completeness: float | None  # of the records archived, the share that came out as one thing or another
    unknown_place_share: float | None
    unknown_name_share: float | None
    rejected_share: float | None
    rejected_reasons: dict[str, int]
    duplicate_records: int  # rows that another row of the same origin is beside
    duplicate_click_share: float | None  # of the events, those whose click_id another one of the hour has, too


class Profile(Struct, kw_only=True):
    """All hours that were asked for, and how many minutes ago the newest record arrived; None if there is none."""

    freshness_minutes: float | None
    hours: list[Hour]


class Limits(Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """What a file may set; what it leaves out has no limit."""

    freshness_minutes: Annotated[float, Meta(ge=0)] | None = None  # at most
    completeness: Share | None = None  # at least
    unknown_place_share: Share | None = None  # at most, and so are all below
    unknown_name_share: Share | None = None
    rejected_share: Share | None = None
    rejected_reasons: dict[str, Share] = {}  # shares of all records by reason
    duplicate_records: Annotated[int, Meta(ge=0)] | None = None
    duplicate_click_share: Share | None = None


def read_limits(file: Path) -> Limits:
    """Read limits from YAML; `Refused` names what is wrong there."""
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Limits)
    except OSError as error:
        raise Refused(f"cannot read the thresholds in {file} ({error.strerror}). Next: check the path") from None
    except msgspec.MsgspecError as error:
        known = ", ".join(Limits.__struct_fields__)
        raise Refused(f"{file} does not set thresholds: {error}. Next: set some of {known}") from None


def profile(lake: LocalLake, values: Mapping[str, str], now: datetime) -> Profile:
    """Measure the hours of the days from `since` to `until`; `now` is in UTC."""
    tables = ["enriched", "rejected", *(["suppressed"] if lake.has("suppressed") else [])]
    for table in (*tables, "raw"):
        lake.show("", "", table)

    def filled(text: str, **more: str) -> str:
        return text.format(hour=_HOUR, days=_DAYS, **more)

    def origins(*names: str) -> str:
        out = " UNION ALL ".join(filled(_OUT, table=name) for name in names)
        return filled(_OF_ORIGINS, out=out)

    nothing = "SELECT NULL AS hour, 0 AS records LIMIT 0"
    query = filled(
        _HOURS,
        out=origins(*tables),
        archived=origins("raw"),
        events=filled(_EVENTS),
        rejected=origins("rejected"),
        suppressed=origins("suppressed") if "suppressed" in tables else nothing,
    )
    reasons: dict[str, dict[str, int]] = {}
    for hour, reason, count in lake.rows(filled(_REASONS), values):
        reasons.setdefault(hour, {})[str(reason)] = count
    hours = [_hour(row, reasons) for row in lake.rows(query, values)]
    newest = [
        moment
        for table in (*tables, "raw")
        for (moment,) in lake.rows(f"SELECT max(arrival_timestamp) FROM {table} WHERE {_DAYS}", values)
        if moment is not None
    ]
    minutes = (now - max(newest).replace(tzinfo=UTC)).total_seconds() / 60 if newest else None
    return Profile(freshness_minutes=minutes, hours=hours)


def _hour(row: tuple[Any, ...], reasons: Mapping[str, dict[str, int]]) -> Hour:
    hour, enriched, rejected, suppressed, raw, out, archived, duplicates, repeated, places, names = row
    records = enriched + rejected + suppressed
    return Hour(
        hour=f"{hour}:00",
        enriched=enriched,
        rejected=rejected,
        suppressed=suppressed,
        raw=raw,
        completeness=_share(out or 0, archived or 0),
        unknown_place_share=_share(places, enriched),
        unknown_name_share=_share(names, enriched),
        rejected_share=_share(rejected, records),
        rejected_reasons=reasons.get(hour, {}),
        duplicate_records=duplicates,
        duplicate_click_share=_share(repeated, enriched),
    )


def broken(found: Profile, limits: Limits) -> list[str]:
    """Say which limits are broken, each where it is worst."""
    sentences = []
    if limits.freshness_minutes is not None:
        minutes = found.freshness_minutes
        if minutes is None:
            sentences.append(f"freshness_minutes: nothing has arrived, {limits.freshness_minutes:g} are the limit")
        elif minutes > limits.freshness_minutes:
            sentences.append(f"freshness_minutes is {minutes:.1f}, {limits.freshness_minutes:g} are the limit")
    for name, sign in (
        ("completeness", -1),
        *((name, 1) for name in ("unknown_place_share", "unknown_name_share", "rejected_share")),
        *((name, 1) for name in ("duplicate_records", "duplicate_click_share")),
    ):
        limit = getattr(limits, name)
        measured = [(getattr(hour, name), hour.hour) for hour in found.hours if getattr(hour, name) is not None]
        sentences += _worst(name, measured, limit, sign)
    for reason, limit in limits.rejected_reasons.items():
        measured = [
            (hour.rejected_reasons.get(reason, 0) / records, hour.hour)
            for hour in found.hours
            if (records := hour.enriched + hour.rejected + hour.suppressed)
        ]
        sentences += _worst(f"rejected_reasons.{reason}", measured, limit, 1)
    return sentences


def _worst(name: str, measured: list[tuple[float, str]], limit: float | None, sign: int) -> list[str]:
    if limit is None:
        return []
    beyond = [(value, hour) for value, hour in measured if sign * value > sign * limit]
    if not beyond:
        return []
    value, hour = max(beyond, key=lambda one: sign * one[0])
    more = f", and {len(beyond) - 1} more hours" if len(beyond) > 1 else ""
    return [f"{name} is {value:.6g} in {hour}{more}, {limit:g} is the limit"]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
