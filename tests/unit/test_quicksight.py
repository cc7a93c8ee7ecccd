"""QuickSight's template: what reaches AWS is what its API takes, and its pictures name columns that there are."""

import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import sqlglot
from botocore.validate import ParamValidator
from cfnlint.decode import decode

from deploy.quicksight_columns import DATASETS, quicksight_columns
from tests.events import EXAMPLE

FILE = Path(__file__).parents[2] / "deploy" / "templates" / "quicksight.yaml"
VALUES = {
    "Environment": "prod",
    "GlueDatabase": "clickstream_prod",
    "QuickSightDays": 90,
    "AWS::AccountId": "123456789012",
    "AWS::Region": "eu-central-1",
    "AWS::Partition": "aws",
}


def rendered(value: Any) -> Any:
    """Work out the functions; whatever AWS alone can know looks like an ARN."""
    if isinstance(value, list):
        return [rendered(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("Ref", name)]:
            return VALUES.get(name, f"arn:aws:made:up:123456789012:{name}")
        case [("Fn::GetAtt", [name, _])]:
            return f"arn:aws:made:up:123456789012:{name}"
        case [("Fn::Sub", text)]:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(VALUES.get(found[1], f"made-{found[1]}")), text)
    return {key: rendered(inner) for key, inner in value.items()}


@pytest.fixture(scope="module")
def resources() -> dict[str, dict[str, Any]]:
    template, faults = decode(str(FILE))
    assert not faults
    return {name: rendered(said["Properties"]) for name, said in template["Resources"].items()}


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("Source", "CreateDataSource"),
        ("Requests", "CreateDataSet"),
        ("Actions", "CreateDataSet"),
        ("Dashboard", "CreateDashboard"),
    ],
)
def test_what_is_asked_of_quicksight_is_what_its_api_takes(
    resources: dict[str, dict[str, Any]], name: str, operation: str
) -> None:
    model = botocore.session.get_session().get_service_model("quicksight").operation_model(operation)

    report = ParamValidator().validate(resources[name], model.input_shape)

    assert not report.has_errors(), report.generate_report()


def walk(value: Any, key: str) -> list[Any]:
    """Find everything that is under a key, however deep."""
    if isinstance(value, list):
        return [found for inner in value for found in walk(inner, key)]
    if not isinstance(value, dict):
        return []
    return ([value[key]] if key in value else []) + [found for inner in value.values() for found in walk(inner, key)]


def test_the_dashboard_has_the_five_pictures_and_each_says_what_it_shows(resources: dict[str, dict[str, Any]]) -> None:
    (sheet,) = resources["Dashboard"]["Definition"]["Sheets"]

    kinds = {kind: visual for one in sheet["Visuals"] for kind, visual in one.items()}

    assert set(kinds) == {
        "PieChartVisual",
        "FilledMapVisual",
        "GeospatialMapVisual",
        "BarChartVisual",
        "PivotTableVisual",
    }
    assert kinds["PieChartVisual"]["ChartConfiguration"]["DonutOptions"]["ArcOptions"]["ArcThickness"] != "WHOLE"
    assert kinds["BarChartVisual"]["ChartConfiguration"]["SortConfiguration"]["CategoryItemsLimit"]["ItemsLimit"] == 10
    assert all(visual["VisualContentAltText"] for visual in kinds.values())
    assert len(sheet["FilterControls"]) == 3


def test_every_column_it_names_is_one_of_the_dataset(resources: dict[str, dict[str, Any]]) -> None:
    definition = resources["Dashboard"]["Definition"]
    columns = {name: {one["Name"] for one in quicksight_columns(name)} for name in DATASETS}

    named = walk(definition, "Column") + [one for some in walk(definition, "Columns") for one in some]

    named = [one for one in named if "DataSetIdentifier" in one]
    assert len(named) > 15
    assert [one for one in named if one["ColumnName"] not in columns[one["DataSetIdentifier"]]] == []


def test_filters_and_controls_name_what_there_is(resources: dict[str, dict[str, Any]]) -> None:
    definition = resources["Dashboard"]["Definition"]
    visuals = set(walk(definition, "VisualId"))
    fields = walk(definition, "FieldId")

    assert {one for some in walk(definition, "VisualIds") for one in some} <= visuals
    assert set(walk(definition, "SourceFilterId")) <= set(walk(definition, "FilterId"))
    assert set(walk(definition, "HierarchyId")) == {"place"}
    assert {one["FieldId"] for one in walk(definition, "FieldSort")} <= set(fields)


@pytest.mark.parametrize("name", ["Requests", "Actions"])
def test_a_dataset_answers_the_columns_that_it_says(resources: dict[str, dict[str, Any]], name: str) -> None:
    table = resources[name]["PhysicalTableMap"]["sql"]["CustomSql"]

    query = sqlglot.parse_one(table["SqlQuery"], dialect="athena")

    assert query.named_selects == [one["Name"] for one in table["Columns"]]
    assert "90" in table["SqlQuery"]
    assert set(query.named_selects) - {"day", "events", "country", "region", "city", "name"} <= set(EXAMPLE)


def test_no_copy_of_the_rows_is_kept_that_an_erase_would_not_reach(resources: dict[str, dict[str, Any]]) -> None:
    for name in ("Requests", "Actions"):
        assert resources[name]["ImportMode"] == "DIRECT_QUERY"
    assert resources["Dashboard"]["DashboardPublishOptions"]["ExportToCSVOption"]["AvailabilityStatus"] == "DISABLED"
