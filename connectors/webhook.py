"""Offers to somebody's HTTP door, one POST each."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv6Address, IPv6Network, ip_address
from random import Random
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from clickstream.errors import Refused, Unavailable
from clickstream.place import public_address
from connectors.pauses import asked_for, backoff

MAX_ANSWER_BYTES: Final = 64 << 10  # that are read, so that the connection can be used again

_TAKEN: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_BUSY: Final = {408, 429, *range(500, 600)}
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address

Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for a host's addresses, best first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Say whether an address is out on the internet: not loopback, private, link-local or otherwise set apart."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        inner = ip_address(parsed.packed[-4:]) if parsed in _NAT64 else parsed.sixtofour
        if inner is not None:
            return is_public(str(inner))
    return public_address(address) is not None


@dataclass(frozen=True, slots=True)
class Webhook:
    """POSTs each offer as JSON over a connection that stays open, with its `offer_id` as `Idempotency-Key`.

    Delivering twice is harmless if the other side keeps to that key, and it will happen: a broken connection, a 408,
    429 or 5xx is tried again, after `Retry-After` if the answer has one, and in the end `Unavailable`. Any other 4xx is
    about this offer and returned. A redirect is never followed, and `Refused`, as is a certificate that does not fit.

    The address may come from a stranger, so unless `allow_private` it has to be https:// and at a public address, which
    is looked at each time a connection is opened and is the very one it is opened to. No proxy is used, for it would
    choose the address itself. No message holds an offer, nor more of the URL than the host: a path may be a secret.
    """

    url: str = field(repr=False)
    allow_private: bool = False
    attempts: int = 10  # about half a minute
    timeout: float = 10.0  # seconds, to connect and again for the answer
    ca: str | None = None  # a file with the authorities to trust instead of the usual ones
    resolve: Resolve = resolve
    is_allowed: Callable[[str], bool] = is_public
    sleep: Callable[[float], None] = time.sleep
    rng: Random = field(default_factory=Random, repr=False)
    session: requests.Session = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        schemes = {"https", "http"} if self.allow_private else {"https"}
        if parts is None or parts.scheme not in schemes or not parts.hostname:
            raise Refused(
                f"A webhook is an address like https://shop.example/offers, not {self.host}. "
                f"Next: correct it; http:// needs --allow-private, for what travels in clear should stay at home"
            )
        object.__setattr__(self, "session", self._session())
        if not self.allow_private:
            self._look_up(parts.hostname, parts.port or 443)

    @property
    def host(self) -> str:
        """The part of the URL that may be shown."""
        parts = _parts(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts and parts.netloc else "what was given"

    def deliver(self, offer_id: str, offer: bytes) -> int:
        """Return the status that settled it: a 2xx says it was taken, a 4xx that it never will be."""
        why = ""
        for failures in range(1, self.attempts + 1):
            status, why, asked = self._post(offer_id, offer)
            if status and status not in _BUSY:
                return status
            if failures < self.attempts:
                self.sleep(backoff(failures, self.rng) if asked is None else asked)
        raise Unavailable(
            f"The webhook at {self.host} did not take an offer in {self.attempts} attempts, the last answer was {why}. "
            f"Next: see whether it is up, curl -i {self.host}"
        )

    def close(self) -> None:
        """Close the connection."""
        self.session.close()

    def _post(self, offer_id: str, offer: bytes) -> tuple[int, str, float | None]:
        """Return the answer's status, 0 if none came, what went wrong, and the seconds it asks to wait."""
        try:
            with self.session.post(
                self.url,
                data=offer,
                headers={"Content-Type": "application/json", "Idempotency-Key": offer_id},
                timeout=self.timeout,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status, asked = answer.status_code, asked_for(answer.headers.get("Retry-After"))
                _drain(answer, time.monotonic() + self.timeout)
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                return 0, type(error).__name__, None
            raise Refused(
                f"The certificate of the webhook at {self.host} is not to be trusted. "
                f"Next: see what is wrong with it, curl -vI {self.host}"
            ) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            return 0, type(error).__name__, None
        except requests.RequestException as error:
            raise Refused(
                f"The webhook at {self.host} takes no POST: {type(error).__name__}. Next: check it"
            ) from error
        if status in _REDIRECTS:
            raise Refused(
                f"The webhook at {self.host} answered {status}, a redirect, which is not followed. "
                f"Next: give the address it leads to"
            )
        return status, str(status), asked

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # neither proxies nor a .netrc
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        if self.ca:
            session.verify = self.ca
        if not self.allow_private:
            session.mount("https://", _Pinned(self._look_up))
        return session

    def _look_up(self, host: str, port: int) -> list[str]:
        """Return a host's addresses, none if it is unknown; `Refused` if even one of them is not public."""
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError):  # UnicodeError: a name that cannot be one
            return []
        for address in addresses:
            if not self.is_allowed(address):
                raise Refused(
                    f"The webhook at {self.host} is at {address}, which is not a public address. "
                    f"Next: if it is meant to be one of your own machines, pass --allow-private"
                )
        return addresses


class _Pinned(HTTPAdapter):
    """Opens connections only to addresses it got from `look_up`, for whatever name the URL has."""

    def __init__(self, look_up: Resolve) -> None:
        class Connection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                name = self._dns_host
                failure: NewConnectionError | ConnectTimeoutError = NameResolutionError(
                    name, self, socket.gaierror(socket.EAI_NONAME, "no address")
                )
                for address in look_up(name, self.port or 443):
                    self._dns_host = address
                    try:
                        return super()._new_conn()
                    except (NewConnectionError, ConnectTimeoutError) as error:
                        failure = error
                    finally:
                        self._dns_host = name  # the certificate has to be for the name
                raise failure

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        self.pool = Pool
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have no way to connect but this one."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": self.pool}


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises when it is no number
    except ValueError:
        return None
    return parts


def _drain(answer: requests.Response, deadline: float) -> None:
    """Read a short answer to its end, so that the connection can be used again; leave a long, slow or broken one."""
    left = MAX_ANSWER_BYTES
    with suppress(HTTPError, OSError):
        while left > 0 and time.monotonic() < deadline and (piece := answer.raw.read1(left, decode_content=False)):
            left -= len(piece)
