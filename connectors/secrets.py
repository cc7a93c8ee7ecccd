"""From where a secret is, which a setting may say, to what it is."""

import os
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from clickstream.errors import Refused, Unavailable

_VARIABLE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
# an exclamation mark is in the names of those that AWS looks after, rds!cluster-…
_ARN: Final = re.compile(r"(arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):\d*:secret:[\w/+=.@!-]+)(?:#(.+))?", re.ASCII)
_NAME: Final = re.compile(r"secretsmanager:([\w/+=.@-]+)(?:#(.+))?", re.ASCII)
_FORMS: Final = (
    "env:NAME for an environment variable, or secretsmanager:NAME or arn:aws:secretsmanager:… for one in AWS Secrets "
    "Manager, with #key after it if that is JSON"
)
_BUSY: Final = {"InternalServiceError", "LimitExceededException", "Throttling", "ThrottlingException"}
_NEXT: Final = {
    "AccessDeniedException": "allow secretsmanager:GetSecretValue on it (with a KMS key of your own, kms:Decrypt too)",
    "DecryptionFailure": "allow kms:Decrypt on the key it is encrypted with",
    "ResourceNotFoundException": "check its name and region, or make it with aws secretsmanager create-secret",
}


class SecretsManager(Protocol):
    """The one method of `boto3.client("secretsmanager")` that is needed here."""

    def get_secret_value(self, **request: Any) -> Any:
        """Take `SecretId`, answer `SecretString`."""


def secret(
    reference: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    secrets_manager: SecretsManager | None = None,
    setting: str = "a secret",
) -> str | None:
    """Return what `env:NAME`, `secretsmanager:NAME`, or an ARN leads to, less line ends after it; None for none.

    Anything else is `Refused`, so that nobody gets used to writing secrets into settings, and so is a place with
    nothing in it; `setting` says in the message whose it is. `Unavailable` if Secrets Manager cannot be reached. No
    message shows a secret, nor a reference that might be one.
    """
    if not reference:
        return None
    if variable := _VARIABLE.fullmatch(reference):
        return _from_environment(variable[1], environ, setting)
    if arn := _ARN.fullmatch(reference):
        return _stored(arn[1], arn[3], secrets_manager, arn[2], setting)
    if name := _NAME.fullmatch(reference):
        return _stored(name[1], name[2], secrets_manager, None, setting)
    raise Refused(f"{setting}: the settings say where a secret is, never what it is. Next: write {_FORMS}")


def _from_environment(name: str, environ: Mapping[str, str], setting: str) -> str:
    found = environ.get(name, "").rstrip("\r\n")
    if not found:
        raise Refused(
            f"{setting}: the environment variable {name} is not set. Next: export {name}=…, or write {_FORMS}"
        )
    return found


def _stored(secret_id: str, key: str | None, client: SecretsManager | None, region: str | None, setting: str) -> str:
    text = _answer(secret_id, client, region, setting).get("SecretString")
    if key is not None and text is not None:
        text = _member(text, key)
    found = text.rstrip("\r\n") if isinstance(text, str) else ""
    if not found:
        what = "is empty or not text" if key is None else f"is not JSON with a text under {key!r}"
        raise Refused(
            f"{setting}: the secret {secret_id} {what}. Next: look at it, "
            f"aws secretsmanager get-secret-value --secret-id {secret_id}"
        )
    return found


def _answer(secret_id: str, client: SecretsManager | None, region: str | None, setting: str) -> Mapping[str, Any]:
    # The AWS libraries take a second to import, and a laptop's secrets are environment variables.
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004, PLC0415

    where = f"{setting}: the secret {secret_id}"
    try:
        answer: Mapping[str, Any] = (client or _client(region)).get_secret_value(SecretId=secret_id)
    except (ConnectionError, HTTPClientError) as error:
        raise Unavailable(
            f"{where}: Secrets Manager cannot be reached ({error}). Next: check network and region"
        ) from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _BUSY or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise Unavailable(f"{where}: Secrets Manager answered {error}. Next: try again later") from error
        advice = _NEXT.get(code, "check its name, region and your permissions")
        raise Refused(f"{where}: Secrets Manager answered {error}. Next: {advice}") from error
    except BotoCoreError as error:
        advice = "give AWS credentials and a region, aws sts get-caller-identity shows whose are used"
        raise Refused(f"{where}: Secrets Manager cannot be asked ({error}). Next: {advice}") from error
    return answer


def _client(region: str | None) -> SecretsManager:
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    patience = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    client: SecretsManager = boto3.client("secretsmanager", region_name=region, config=patience)
    return client


def _member(text: str, key: str) -> object:
    try:
        members = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return members.get(key)
