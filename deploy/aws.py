"""Clients of AWS or of a stand-in for it, and AWS' refusals in a person's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  # botocore's
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from clickstream.errors import ClickstreamError, Refused, Unavailable

_WHO: Final = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, SSOError, TokenRetrievalError)
_EXPIRED: Final = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_BAD_KEYS: Final = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "InvalidAccessKeyId",
}
_DENIED: Final = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
_BUSY: Final = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "InternalFailure",
    "InternalError",
    "SlowDown",
}


class Tell(Protocol):
    """Where progress goes: lines that stay, and one that the next replaces."""

    def step(self, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def now(self, text: str) -> None: ...


class Clients:
    """One client for each service, made when it is first asked for."""

    def __init__(self, region: str, endpoint: str | None = None) -> None:
        self.region = region
        self.endpoint = endpoint
        self._made: dict[str, Any] = {}
        self._session: Any = None

    @property
    def at_stand_in(self) -> bool:
        """Whether this is not AWS."""
        return bool(self.endpoint) and ".amazonaws.com" not in str(self.endpoint)

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]

    def _make(self, service: str) -> Any:
        config: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 6}, "connect_timeout": 10}
        keys: dict[str, Any] = {}
        if self.at_stand_in:  # it looks at no keys but wants to have some; nobody's real ones go there
            keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "aws_session_token": None}
            config |= {"proxies": {}, "s3": {"addressing_style": "path"}}
        try:
            self._session = self._session or boto3.Session(region_name=self.region)
            return self._session.client(service, endpoint_url=self.endpoint, config=Config(**config), **keys)
        except ValueError as error:
            raise Refused(
                f"no client for {service} in region {self.region!r} at {self.endpoint or 'AWS'}: {error}. "
                "Next: mend the region in the environment's file, or --endpoint"
            ) from None

    def close(self) -> None:
        """Close all connections."""
        for client in self._made.values():
            client.close()


def code(error: ClientError) -> str:
    """Return the short name of what AWS answered."""
    return str(error.response.get("Error", {}).get("Code", ""))


def words(error: ClientError) -> str:
    """Return what AWS said."""
    return str(error.response.get("Error", {}).get("Message") or error)


@contextmanager
def answering(doing: str) -> Iterator[None]:
    """Turn what AWS and its library raise into a sentence with the next step."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise explained(error, doing) from error


def explained(error: ClientError | BotoCoreError, doing: str) -> ClickstreamError:
    """Return what a person can do about it."""
    if isinstance(error, ClientError):
        return _answered(error, doing)
    if isinstance(error, _WHO):
        return Refused(f"{doing}: no AWS credentials ({error}). Next: aws configure, or set AWS_PROFILE")
    if isinstance(error, ConnectionError):
        return Unavailable(f"{doing}: {error}. Next: look at the network, the proxy and the region's name")
    return Refused(f"{doing}: {error}. Next: clickstream doctor")


def _answered(error: ClientError, doing: str) -> ClickstreamError:
    name = code(error)
    said = f"{doing}: {error.operation_name} was answered {name}: {words(error)}"
    if name in _BUSY:
        return Unavailable(f"{said}. Next: the same command again in a minute")
    if name in _EXPIRED:
        then = "your session is over: log in again, aws sso login"
    elif name in _BAD_KEYS:
        then = "see whose keys these are, aws sts get-caller-identity"
    elif name in _DENIED:
        then = "have whoever administers the account allow it"
    elif name == "ValidationError":
        then = "mend what it names, in the template or in the environment's file"
    else:
        then = "clickstream doctor"
    return Refused(f"{said}. Next: {then}")
