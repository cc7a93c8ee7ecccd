"""Shows how good the data is, and fails where a threshold is broken."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from analytics.profile import Hour, Profile, broken, profile, read_limits
from cli import screen
from cli.query import Sources
from clickstream.errors import ClickstreamError


class ThresholdBroken(ClickstreamError):
    """The data is not as good as it was to be."""


def run_profile(
    sources: Sources, values: Mapping[str, str], thresholds: Path | None, format_: Literal["table", "json"]
) -> None:
    """Measure, print, and raise if a threshold is broken."""
    limits = read_limits(thresholds) if thresholds else None
    with sources.opened() as lake:
        found = profile(lake, values, datetime.now(UTC))
    sentences = broken(found, limits) if limits else []
    if format_ == "json":
        report = {**msgspec.to_builtins(found), "broken": sentences}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        _show(found)
    if sentences:
        raise ThresholdBroken(f"{thresholds} is broken: {'; '.join(sentences)}")


def _show(found: Profile) -> None:
    if found.freshness_minutes is None:
        screen.out.print("\nnothing has arrived on these days", markup=False)
        return
    screen.out.print(f"\nthe newest record arrived {found.freshness_minutes:,.1f} minutes ago", markup=False)
    columns = ["hour (UTC)", "enriched", "rejected", "suppressed", "raw", "complete"]
    columns += ["no place", "no name", "rejected", "records twice", "clicks twice", "reasons"]
    rows = [_row(hour) for hour in found.hours]
    screen.table("by hour of arrival", columns, rows, right=tuple(range(1, 11)))


def _row(hour: Hour) -> list[object]:
    shares = (hour.completeness, hour.unknown_place_share, hour.unknown_name_share, hour.rejected_share)
    clicks = _percent(hour.duplicate_click_share)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in hour.rejected_reasons.items())
    counts = [hour.enriched, hour.rejected, hour.suppressed, hour.raw]
    return [hour.hour, *counts, *map(_percent, shares), hour.duplicate_records, clicks, reasons]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
