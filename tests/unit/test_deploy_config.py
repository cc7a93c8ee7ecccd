"""The file of an environment: what is wrong in it is said with its name, its key, and what to write."""

from pathlib import Path
from typing import Any

import pytest

from clickstream.errors import Refused
from deploy import config

STREAMS = """
Parameters:
  Environment: {Type: String}
  ClicksShards: {Type: Number, Default: 1, MinValue: 1}
  StreamMode: {Type: String, Default: PROVISIONED, AllowedValues: [PROVISIONED, ON_DEMAND]}
  Zones: {Type: CommaDelimitedList, Default: ""}
  Encrypted: {Type: String, Default: "true", AllowedValues: ["true", "false"]}
Resources: {Clicks: {Type: AWS::Kinesis::Stream}}
"""


@pytest.fixture
def read(tmp_path: Path) -> Any:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "streams.yaml").write_text(STREAMS)

    def _read(text: str, name: str = "dev") -> config.Environment:
        (tmp_path / "dev.yaml").write_text(text)
        return config.read(name, tmp_path, tmp_path / "templates")

    return _read


def test_a_whole_file_is_read_with_values_as_cloudformation_takes_them(read: Any) -> None:
    found = read(
        "region: eu-west-1\naccount: 012345678901\nevents_per_second: 5\nwithout: [redshift]\ntags: {cost: 7}\n"
        "parameters: {streams: {ClicksShards: 2, Zones: [a, b], Encrypted: false}}"
    )

    assert (found.name, found.region, found.events_per_second, found.without) == (
        "dev",
        "eu-west-1",
        5.0,
        ("redshift",),
    )
    assert found.tags == {"cost": "7"}
    assert found.parameters == {"streams": {"ClicksShards": "2", "Zones": "a,b", "Encrypted": "false"}}


def test_a_file_can_be_named_by_its_path(read: Any, tmp_path: Path) -> None:
    assert read("region: x", str(tmp_path / "dev.yaml")).name == "dev"


def test_the_file_that_is_shipped_is_right() -> None:
    found = config.read("dev")

    assert (found.name, found.without) == ("dev", ("redshift", "quicksight"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "region is missing. Next: write region: eu-central-1"),
        ("regoin: x", "no key regoin (did you mean region?"),
        ("region: x\nparameters: {steams: {}}", "no key parameters.steams (did you mean streams?"),
        ("region: x\nparameters: {streams: {ClickShards: 1}}", "streams.ClickShards (did you mean ClicksShards?"),
        ("region: x\nparameters: {streams: {Environment: x}}", "no key parameters.streams.Environment"),
        ("region: x\nparameters: {streams: {ClicksShards: 0}}", "'0', but it is at least 1"),
        ("region: x\nparameters: {streams: {StreamMode: AUTO}}", "'AUTO', but it is one of PROVISIONED, ON_DEMAND"),
        ("region: x\nparameters: {streams: {ClicksShards: {a: 1}}}", "it is a text, a number or true or false"),
        ("region: x\nparameters: {streams: 3}", "parameters.streams is not a mapping"),
        ("region: x\nparameters: {job: {A: 1}}", "parameters.job has no template"),
        ("region: x\nwithout: [streams]", "no part that can be left out"),
        ("region: x\nwithout: [redshfit]", "did you mean redshift?"),
        ("region: x\nwithout: redshift", "without is not a list"),
        ("region: x\nevents_per_second: 0", "events_per_second is 0, but it is a number above 0"),
        ("region: x\nevents_per_second: many", "events_per_second is 'many'"),
        ("region: x\ntags: [a]", "tags is not a mapping"),
        ("region: [", "cannot be read"),
        ("- region", "it is not a mapping"),
        ("1: x", "it is not a mapping of names"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_key(read: Any, text: str, words: str) -> None:
    with pytest.raises(Refused) as said:
        read(text)

    assert words in str(said.value)
    assert "dev.yaml" in str(said.value)


@pytest.mark.parametrize("name", ["Dev", "dev-eu", "1dev", "x" * 13, "", "../dev"])
def test_a_name_that_would_not_fit_or_could_begin_anothers_is_refused(read: Any, name: str) -> None:
    with pytest.raises(Refused, match="cannot name an environment"):
        read("region: x", name)


def test_a_missing_file_names_those_that_are_there(read: Any) -> None:
    read("region: x")

    with pytest.raises(Refused, match=r"no .*prod.yaml; environments with a file: dev. Next: copy"):
        read("region: x", "prod")
