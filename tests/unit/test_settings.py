"""Settings come from a file of Managed Flink's shape, and a mistake in it is explained."""

from pathlib import Path

import pytest

from clickstream.errors import Refused
from clickstream.settings import Lake, Settings, Source, read_settings, settings_file


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    settings = Settings(lake=Lake(root="s3://my-lake", raw=False), source=Source(endpoint="http://127.0.0.1:1"))
    (tmp_path / "file").write_bytes(settings.to_properties())

    assert read_settings(tmp_path / "file") == settings


def test_groups_of_managed_flink_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(
        '[{"PropertyGroupId": "kinesis.analytics.flink.run.options", "PropertyMap": {"python": "main.py"}},'
        ' {"PropertyGroupId": "lake", "PropertyMap": {"root": "/lake"}}]'
    )

    assert read_settings(tmp_path / "file") == Settings(lake=Lake(root="/lake"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "missing required field `root`.*s3://my-lake"),
        ("{}", "not a list of property groups"),
        ("nothing", "not a list of property groups"),
        ('[{"PropertyGroupId": "lake", "PropertyMap": {"rot": "x"}}]', "unknown field `rot`. Its keys are root"),
        ('[{"PropertyGroupId": "lake", "PropertyMap": {"root": "x", "raw": "maybe"}}]', "Expected `bool`"),
    ],
)
def test_a_mistake_names_the_file_the_group_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "file").write_text(text)

    with pytest.raises(Refused, match=said) as refused:
        read_settings(tmp_path / "file")

    assert str(tmp_path / "file") in str(refused.value)


def test_without_a_file_the_variable_that_names_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="set CLICKSTREAM_PROPERTIES"):
        read_settings(tmp_path / "none")

    assert settings_file({}) == Path("/etc/flink/application_properties.json")
    assert settings_file({"CLICKSTREAM_PROPERTIES": "here"}) == Path("here")


def test_what_is_sent_fills_for_longer_only_where_nobody_waits_for_offers() -> None:
    assert Settings(lake=Lake(root="x")).to_fill(10) == 10
    assert Settings(lake=Lake(root="x"), source=Source(replay="y")).to_fill(10) == 400
