"""What is looked at before anything is created, and the next step for what is wrong."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from clickstream.errors import Refused
from deploy import doctor
from deploy.config import Environment
from deploy.doctor import Check

ACCOUNT = "123456789012"


def environment(**changes: Any) -> Environment:
    return Environment(**{"name": "dev", "file": Path("dev.yaml"), "region": "eu-central-1", **changes})


class Account:
    """An account in which all is well; `change` replaces one answer, or makes it an error."""

    region = "eu-central-1"

    def __init__(self) -> None:
        zones = [{"ZoneName": f"eu-central-1{zone}", "State": "available"} for zone in "abc"]
        self._answers: dict[tuple[str, str], Any] = {
            ("sts", "get_caller_identity"): {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/ada"},
            ("ec2", "describe_availability_zones"): {"AvailabilityZones": zones},
            ("kinesis", "describe_limits"): {"ShardLimit": 500, "OpenShardCount": 100},
            ("service-quotas", "get_service_quota"): {"Quota": {"Value": 10_000.0}},
        }

    def change(self, service: str, operation: str, answer: Any) -> None:
        self._answers[service, operation] = answer

    def __call__(self, service: str) -> Any:
        def ask(operation: str) -> Any:
            answer = self._answers.get((service, operation), {})
            if isinstance(answer, Exception):
                raise answer
            return answer

        class Client(SimpleNamespace):
            def __getattr__(self, operation: str) -> Any:
                return lambda **_: ask(operation)

        return Client()


@pytest.fixture
def account() -> Account:
    return Account()


def examined(account: Account, **changes: Any) -> dict[str, Check]:
    checks = doctor.examine(environment(**changes), account, Path(__file__))  # type: ignore[arg-type]
    return {check.about: check for check in checks}


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "Ask")


def test_an_account_in_which_all_is_well_has_nothing_to_do(account: Account) -> None:
    found = examined(account)

    found.pop("templates")  # of which a checkout has all or not
    assert [check for check in found.values() if check.verdict != "ok"] == []
    assert {"credentials", "region", "shards", "kinesis", "kinesisanalyticsv2", "API requests"} <= set(found)


@pytest.mark.parametrize(
    ("service", "operation", "answer", "about", "words"),
    [
        ("sts", "get_caller_identity", NoCredentialsError(), "credentials", "aws configure"),
        ("sts", "get_caller_identity", refusal("ExpiredToken"), "credentials", "aws sso login"),
        ("sts", "get_caller_identity", refusal("InvalidClientTokenId"), "credentials", "aws sts get-caller-identity"),
        ("ec2", "describe_availability_zones", {"AvailabilityZones": []}, "region", "choose another"),
        ("kinesis", "describe_limits", {"ShardLimit": 10, "OpenShardCount": 10}, "shards", "Service Quotas"),
        ("wafv2", "list_web_acls", refusal("AccessDeniedException"), "wafv2", "administers the account"),
        ("glue", "get_databases", EndpointConnectionError(endpoint_url="https://x"), "glue", "the network"),
        ("service-quotas", "get_service_quota", {"Quota": {"Value": 0.0}}, "VPCs in the region", "Service Quotas"),
    ],
)
def test_what_is_wrong_has_a_next_step(
    account: Account, service: str, operation: str, answer: Any, about: str, words: str
) -> None:
    account.change(service, operation, answer)

    check = examined(account)[about]

    assert check.verdict == "bad"
    assert words in check.then


def test_a_quota_that_nobody_has_changed_is_aws_default_and_one_that_cannot_be_asked_for_is_worth_a_look(
    account: Account,
) -> None:
    account.change("service-quotas", "get_service_quota", refusal("NoSuchResourceException"))
    account.change("service-quotas", "get_aws_default_service_quota", {"Quota": {"Value": 5.0}})
    of_nobody = examined(account)["VPCs in the region"]
    account.change("service-quotas", "get_service_quota", refusal("AccessDeniedException"))
    not_allowed = examined(account)["VPCs in the region"]

    assert (of_nobody.verdict, of_nobody.found) == ("ok", "up to 5")
    assert (not_allowed.verdict, not_allowed.then) == ("look", "have whoever administers the account allow it")


def test_without_credentials_nothing_more_is_asked(account: Account) -> None:
    account.change("sts", "get_caller_identity", NoCredentialsError())

    assert list(examined(account))[-1] == "credentials"


def test_credentials_of_another_account_are_refused_with_both(account: Account) -> None:
    with pytest.raises(Refused, match=f"{ACCOUNT}.*999999999999.*AWS_PROFILE"):
        doctor.need_account(account, environment(account="999999999999"))  # type: ignore[arg-type]


def test_more_events_than_the_accounts_api_takes_is_worth_a_look(account: Account) -> None:
    check = examined(account, events_per_second=20_000.0)["API requests"]

    assert check.verdict == "look"
    assert "POST /events" in check.then


def test_a_geo_database_that_is_not_there_is_said_before_a_zip_is_built(account: Account) -> None:
    check = examined(account, geo_database=Path("nowhere.mmdb"))["geo database"]

    assert (check.verdict, check.found) == ("bad", "no nowhere.mmdb")
