"""Secrets, from an environment and a Secrets Manager of the test's own."""

import json
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError, ReadTimeoutError
from botocore.stub import Stubber

from clickstream.errors import Refused, Unavailable
from connectors import secrets
from connectors.secrets import secret

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:clickstream/ipinfo-AbCdEf"


@pytest.fixture
def manager() -> Iterator[Stubber]:
    client = boto3.client("secretsmanager", "eu-west-1", aws_access_key_id="id", aws_secret_access_key="key")
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def holds(manager: Stubber, secret_id: str, **value: Any) -> None:
    manager.add_response("get_secret_value", value, {"SecretId": secret_id})


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_secret_value(self, **_: Any) -> Any:
        raise self.error


def test_no_reference_is_no_secret() -> None:
    assert secret(None, environ={}) is None
    assert secret("", environ={}) is None


def test_a_secret_in_the_environment_is_found_by_its_variable() -> None:
    assert secret("env:IPINFO_TOKEN", environ={"IPINFO_TOKEN": "t0ken"}) == "t0ken"


def test_the_environment_is_that_of_the_process_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPINFO_TOKEN", "t0ken")

    assert secret("env:IPINFO_TOKEN") == "t0ken"


@pytest.mark.parametrize("environ", [{}, {"IPINFO_TOKEN": ""}, {"IPINFO_TOKEN": "\n"}])
def test_a_variable_with_nothing_in_it_is_refused_with_what_to_type(environ: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"^geo `ipinfo\.token`: .*IPINFO_TOKEN is not set. Next: export IPINFO_TOKEN=…"):
        secret("env:IPINFO_TOKEN", environ=environ, setting="geo `ipinfo.token`")


def test_a_line_end_after_a_secret_is_not_part_of_it_but_a_space_is(manager: Stubber) -> None:
    holds(manager, "ipinfo", SecretString="pass word \r\n")

    assert secret("env:TOKEN", environ={"TOKEN": "t0ken\n"}) == "t0ken"
    assert secret("secretsmanager:ipinfo", secrets_manager=manager.client) == "pass word "


@pytest.mark.parametrize(
    ("reference", "asked"), [("secretsmanager:clickstream/ipinfo", "clickstream/ipinfo"), (ARN, ARN)]
)
def test_a_secret_in_secrets_manager_is_found_by_name_or_arn(manager: Stubber, reference: str, asked: str) -> None:
    holds(manager, asked, SecretString="t0ken")

    assert secret(reference, environ={}, secrets_manager=manager.client) == "t0ken"


@pytest.mark.parametrize(("reference", "asked"), [("secretsmanager:redis#password", "redis"), (f"{ARN}#password", ARN)])
def test_of_a_secret_in_json_the_key_after_the_hash_is_taken(manager: Stubber, reference: str, asked: str) -> None:
    holds(manager, asked, SecretString=json.dumps({"username": "job", "password": "t0ken", "port": 6379}))

    assert secret(reference, environ={}, secrets_manager=manager.client) == "t0ken"


def test_without_a_key_json_stays_as_it_is(manager: Stubber) -> None:
    holds(manager, "redis", SecretString='{"password": "t0ken"}')

    assert secret("secretsmanager:redis", secrets_manager=manager.client) == '{"password": "t0ken"}'


@pytest.mark.parametrize(
    "stored",
    ['{"user": "hunter2"}', '{"password": 7}', '{"password": ""}', '["hunter2"]', "hunter2", "{", "[" * 100_000],
)
def test_a_key_that_leads_to_no_text_is_refused_without_showing_the_secret(manager: Stubber, stored: str) -> None:
    holds(manager, "redis", SecretString=stored)

    with pytest.raises(Refused, match=r"redis is not JSON with a text under 'password'. Next: ") as refused:
        secret("secretsmanager:redis#password", secrets_manager=manager.client)

    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_a_secret_of_bytes_is_refused(manager: Stubber) -> None:
    holds(manager, "redis", SecretBinary=b"hunter2")

    with pytest.raises(Refused, match="redis is empty or not text"):
        secret("secretsmanager:redis", secrets_manager=manager.client)


@pytest.mark.parametrize(
    "reference",
    [
        "hunter2",
        "env:",
        "env:hunter2!",
        "env:TWO WORDS",
        "ENV:TOKEN",
        "secretsmanager:",
        "secretsmanager:hunter2!",
        "secretsmanager:name#",
        "arn:aws:s3:::hunter2",
        "arn:aws:secretsmanager:eu-west-1:123456789012:parameter:hunter2",
        "$hunter2",
        " ",
    ],
)
def test_a_secret_itself_is_refused_and_not_repeated(reference: str) -> None:
    with pytest.raises(Refused, match=r"where a secret is, never what it is\. Next: write env:NAME") as refused:
        secret(reference, environ={"TOKEN": "t0ken"}, secrets_manager=Failing(ZeroDivisionError()))

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ResourceNotFoundException", "aws secretsmanager create-secret"),
        ("AccessDeniedException", "allow secretsmanager:GetSecretValue"),
        ("DecryptionFailure", "allow kms:Decrypt"),
        ("InvalidRequestException", "check its name"),
        ("UnrecognizedClientException", "your permissions"),
    ],
)
def test_a_refusal_of_secrets_manager_is_one_of_ours_with_the_next_step(
    manager: Stubber, code: str, advice: str
) -> None:
    manager.add_client_error("get_secret_value", code, "said Secrets Manager", 400)

    with pytest.raises(Refused, match=f"ipinfo: .*{code}.* Next: .*{advice}"):
        secret("secretsmanager:ipinfo", secrets_manager=manager.client)


@pytest.mark.parametrize(("code", "status"), [("InternalServiceError", 500), ("ThrottlingException", 400), ("", 503)])
def test_a_secrets_manager_in_trouble_is_unavailable(manager: Stubber, code: str, status: int) -> None:
    manager.add_client_error("get_secret_value", code, "said Secrets Manager", status)

    with pytest.raises(Unavailable, match=r"ipinfo: .* Next: "):
        secret("secretsmanager:ipinfo", secrets_manager=manager.client)


@pytest.mark.parametrize("kind", [EndpointConnectionError, ReadTimeoutError])
def test_a_secrets_manager_out_of_reach_is_unavailable(kind: Any) -> None:
    with pytest.raises(Unavailable, match=r"cannot be reached .* Next: "):
        secret("secretsmanager:ipinfo", secrets_manager=Failing(kind(endpoint_url="https://127.0.0.1:1")))


@pytest.mark.parametrize("error", [NoCredentialsError(), NoRegionError()])
def test_missing_credentials_are_refused_with_the_next_step(error: Exception) -> None:
    with pytest.raises(Refused, match=r"Next: give AWS credentials and a region"):
        secret("secretsmanager:ipinfo", secrets_manager=Failing(error))


def test_an_arn_is_asked_in_its_own_region(monkeypatch: pytest.MonkeyPatch) -> None:
    regions: list[str | None] = []

    def client(region: str | None) -> Failing:
        regions.append(region)
        return Failing(NoCredentialsError())

    monkeypatch.setattr(secrets, "_client", client)

    for reference in (ARN, "secretsmanager:ipinfo"):
        with pytest.raises(Refused):
            secret(reference)

    assert regions == ["eu-west-1", None]


def test_without_a_region_anywhere_the_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(Refused, match=r"Next: give AWS credentials and a region"):
        secret("secretsmanager:ipinfo")


def test_an_environment_variable_needs_no_aws_library() -> None:
    code = (
        "import sys; from connectors.secrets import secret; secret('env:TOKEN', environ={'TOKEN': 't'});"
        "print([name for name in ('boto3', 'botocore') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
