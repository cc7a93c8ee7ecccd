"""The columns of QuickSight's datasets, derived from the event's description: what their SQL groups events by."""

from typing import Any, Final

from clickstream.schema import ENRICHED

DATASETS: Final = {
    "requests": ("event_name", "country", "region", "city"),
    "actions": ("event_name", "country", "user_id", "name"),
}
GEOGRAPHIC: Final = {"country": "COUNTRY", "region": "STATE", "city": "CITY"}


def quicksight_columns(dataset: str) -> list[dict[str, str]]:
    """Return a dataset's columns: the day of arrival, what it groups by, and how many events there are."""
    assert all(str(ENRICHED.field(name).type) == "string" for name in DATASETS[dataset])
    columns = [{"Name": name, "Type": "STRING"} for name in DATASETS[dataset]]
    return [{"Name": "day", "Type": "DATETIME"}, *columns, {"Name": "events", "Type": "INTEGER"}]


def quicksight_tags(dataset: str) -> list[dict[str, Any]]:
    """Return the transforms that tell QuickSight which columns are places."""
    return [
        {"TagColumnOperation": {"ColumnName": name, "Tags": [{"ColumnGeographicRole": GEOGRAPHIC[name]}]}}
        for name in DATASETS[dataset]
        if name in GEOGRAPHIC
    ]
