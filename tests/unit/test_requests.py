"""What no emulator runs is at least asked for in words that AWS knows: botocore validates what would be sent."""

from typing import Any

import pytest

from tests.api_requests import check, requests, validated
from tests.resource_table import NEVER, PAGE, PROVEN, REQUESTS, VALIDATED, existing, listed
from tests.templates import FILES, Rendered, read


@pytest.mark.parametrize(("part", "name"), validated())
def test_aws_knows_what_it_is_asked_for(part: str, name: str) -> None:
    for request in validated()[part, name]:
        assert check(request) == [], request[:2]


def test_the_defaults_are_valid_too() -> None:
    for file in FILES:
        for name, said in Rendered(read(file)).resources().items():
            for request in requests(said["Type"], said["Properties"]):
                assert check(request) == [], (file.stem, name)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"DeliveryStreamTyp": "KinesisStreamAsSource"}, "Unknown parameter"),
        ({"DeliveryStreamType": "Pipe"}, "none of DirectPut"),
        ({"DeliveryStreamName": ""}, "Invalid length"),
        ({"ExtendedS3DestinationConfiguration": {"RoleARN": "arn:aws:iam::123456789012:role/x"}}, "Missing required"),
        ({"ExtendedS3DestinationConfiguration": {"BufferingHints": {"SizeInMBs": "three"}}}, "Invalid type"),
    ],
)
def test_what_aws_would_refuse_is_a_fault(changed: dict[str, Any], fault: str) -> None:
    [(service, operation, good)] = validated()["archive", "RawFirehose"]

    faults = check((service, operation, {**good, **changed}))

    assert fault in "".join(faults)


def test_the_documentation_says_of_every_resource_how_far_it_is_tested() -> None:
    said = listed(PAGE.read_text())

    assert set(said) == set(existing()), "next: python -m tests.resource_table, and read the diff"
    for (part, _, name), shown in said.items():
        assert shown.status in (PROVEN, VALIDATED, NEVER), f"{part} {name}: {shown.status}"
        assert (shown.status == NEVER) == (shown.by == ""), f"{part} {name}: what shows it?"
        assert not shown.by or (PAGE.parents[1] / shown.by).is_file(), f"{part} {name}: there is no {shown.by}"
        if shown.by == REQUESTS:
            assert shown.status == VALIDATED, f"{part} {name}: this test validates, it proves no behaviour"
            assert (part, name) in validated(), f"{part} {name}: nothing here validates it"
