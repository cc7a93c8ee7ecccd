"""Offers to somebody's HTTP door, one POST each."""

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from random import Random
from string import ascii_letters, digits
from typing import Any, Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from clickstream.errors import Refused, Unavailable
from clickstream.place import public_address
from connectors.pauses import asked_for, backoff

MAX_ANSWER_BYTES: Final = 64 << 10  # that are read, so that the connection can be used again
REDIRECTS: Final = 3  # in a row that are followed

_TAKEN: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_FOLLOWED: Final = {307, 308}  # RFC 9110, 15.4: method and body stay; the others may make a GET without a body of it
_BUSY: Final = {408, 429, *range(500, 600)}
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
_PORTS: Final = {"https": 443, "http": 80}
_NAME: Final = {*ascii_letters, *digits, *"-._"}
_METADATA: Final = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")))  # credentials are there

_ALLOW: Final = "--allow-private {} or its network, on AWS in the parameter OffersAllowPrivate"

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], list[str]]


def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for a host's addresses, best first."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Say whether an address is out on the internet: not loopback, private, link-local or otherwise set apart."""
    return public_address(str(_reached(address))) is not None


def _reached(address: str) -> IPv4Address | IPv6Address:
    """Return what an address leads to: the IPv4 address inside of one by which IPv6 reaches such."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return parsed
    translated = IPv4Address(parsed.packed[-4:]) if parsed in _NAT64 else None
    return parsed.ipv4_mapped or translated or parsed.sixtofour or parsed


@dataclass(frozen=True, slots=True)
class Home:
    """The hosts and networks of one's own that a webhook may be at, though they are not on the internet.

    A name allows its host wherever that is, but for the addresses at which clouds hand out credentials: those, only a
    network can allow.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, allowed: Iterable[str]) -> Self:
        """Read names (shop.internal), addresses (10.1.2.3) and networks (10.0.0.0/8); `Refused` if one is neither."""
        names, networks = set[str](), list[Network]()
        for one in filter(None, map(str.strip, allowed)):
            try:
                networks.append(ip_network(one, strict=False))
            except ValueError:
                if set(one) - _NAME:
                    raise Refused(
                        f"{one!r} is neither a host's name nor a network. "
                        f"Next: write it like shop.internal or 10.0.0.0/8"
                    ) from None
                names.add(one.lower().rstrip("."))
        return cls(frozenset(names), tuple(networks))

    def has(self, host: str, address: str) -> bool:
        """Say whether a host that is at this address is one of them."""
        reached = _reached(address)
        if any(reached in network for network in self.networks):
            return True
        return host.lower().rstrip(".") in self.names and not any(reached in network for network in _METADATA)


@dataclass(frozen=True, slots=True)
class Webhook:
    """POSTs each offer as JSON over a connection that stays open, with its `offer_id` as `Idempotency-Key`.

    Delivering twice is harmless if the other side keeps to that key, and it will happen: a broken connection, a 408,
    429 or 5xx is tried again, after `Retry-After` if the answer has one, and in the end `Unavailable`. Any other 4xx is
    about this offer and returned. A certificate that does not fit is `Refused`.

    The address may come from a stranger, so unless it is at `home` it has to be https:// and public, which is looked at
    each time a connection is opened, and the connection is opened to the very address that was looked at. No proxy is
    used, for it would choose the address itself. No message holds an offer, nor more of a URL than the host: a path may
    be a secret.

    A 307 or 308 is followed, a few in a row, to where the same holds; what the URL has before an @ goes to no other
    host. Any other redirect is `Refused`: it does not ask for the offer to be sent again.
    """

    url: str = field(repr=False)
    home: Home = Home()
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
        if parts is None or parts.scheme not in _PORTS or not parts.hostname:
            raise Refused(
                f"A webhook is an address like https://shop.example/offers, not {self.host}. Next: correct it"
            )
        object.__setattr__(self, "session", self._session())
        self._look_up(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])

    @property
    def host(self) -> str:
        """The part of the URL that may be shown."""
        return _shown(self.url)

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
        url = self.url
        for _ in range(REDIRECTS + 1):
            try:
                with self.session.post(
                    url,
                    data=offer,
                    headers={"Content-Type": "application/json", "Idempotency-Key": offer_id},
                    timeout=self.timeout,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    status, asked = answer.status_code, asked_for(answer.headers.get("Retry-After"))
                    location = answer.headers.get("Location")
                    _drain(answer, time.monotonic() + self.timeout)
            except requests.exceptions.SSLError as error:
                if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                    return 0, type(error).__name__, None
                raise Refused(
                    f"{self._named(url)} has a certificate that is not to be trusted. "
                    f"Next: see what is wrong with it, curl -vI {_shown(url)}"
                ) from error
            except (requests.ConnectionError, requests.Timeout) as error:
                return 0, type(error).__name__, None
            except requests.RequestException as error:
                raise Refused(f"{self._named(url)} takes no POST: {type(error).__name__}. Next: check it") from error
            if status not in _REDIRECTS:
                return status, str(status), asked
            url = self._led_to(url, status, location)
        raise Refused(
            f"The webhook at {self.host} has redirected {REDIRECTS + 1} times in a row, at last to {_shown(url)}. "
            f"Next: give the address that all this leads to"
        )

    def _led_to(self, url: str, status: int, location: str | None) -> str:
        """Return where a redirect leads, with the URL's user and password only if that is the same server."""
        if status not in _FOLLOWED or not location:
            raise Refused(
                f"{self._named(url)} answered {status}, a redirect that does not ask for the offer to be sent again. "
                f"Next: give the address it leads to"
            )
        try:
            joined = urljoin(url, location)
        except ValueError:
            joined = ""
        here, there = _parts(url), _parts(joined)
        if here is None or there is None or there.scheme not in _PORTS or not there.hostname:
            raise Refused(
                f"{self._named(url)} redirects to what is no web address. Next: give the address it should lead to"
            )
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
        netloc = here.netloc if same else there.netloc.rpartition("@")[2]
        return there._replace(netloc=netloc, fragment="").geturl()

    def _session(self) -> requests.Session:
        session = _Session()
        session.trust_env = False  # neither proxies nor a .netrc
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        if self.ca:
            session.verify = self.ca
        for scheme in _PORTS:
            session.mount(f"{scheme}://", _Pinned(self._look_up))
        return session

    def _look_up(self, scheme: str, host: str, port: int) -> list[str]:
        """Return a host's addresses, none if it is unknown; `Refused` if one may not be connected to in this way."""
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError):  # UnicodeError: a name that cannot be one
            return []
        for address in addresses:
            if self.home.has(host, address):
                continue
            named = self._named(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
            if scheme != "https":
                raise Refused(
                    f"{named} is http://, and what travels in clear should stay at home. "
                    f"Next: give an https:// address; if it is one of your own machines, {_ALLOW.format(host)}"
                )
            if not self.is_allowed(address):
                raise Refused(
                    f"{named} is at {address}, which is not a public address. "
                    f"Next: if it is one of your own machines, {_ALLOW.format(host)}"
                )
        return addresses

    def _named(self, url: str) -> str:
        """Say which server this is: the webhook itself, or one that it has redirected to."""
        here, first = _parts(url), _parts(self.url)
        if here is None or first is None or (here.scheme, here.hostname) == (first.scheme, first.hostname):
            return f"The webhook at {self.host}"
        return f"{_shown(url)}, to which the webhook at {self.host} redirects,"


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002  # its caller names it
        """Know of no redirect: else the whole answer is read, however long, though it is not to be followed."""
        return None


class _Pinned(HTTPAdapter):
    """Opens connections only to addresses it got from `look_up`, for whatever name the URL has."""

    def __init__(self, look_up: Callable[[str, str, int], list[str]]) -> None:
        class Looking(HTTPConnection):
            scheme = "http"

            def _new_conn(self) -> socket.socket:
                name = self._dns_host
                failure: NewConnectionError | ConnectTimeoutError = NameResolutionError(
                    name, self, socket.gaierror(socket.EAI_NONAME, "no address")
                )
                for address in look_up(self.scheme, name, self.port or _PORTS[self.scheme]):
                    self._dns_host = address
                    try:
                        return super()._new_conn()
                    except (NewConnectionError, ConnectTimeoutError) as error:
                        failure = error
                    finally:
                        self._dns_host = name  # the certificate has to be for the name
                raise failure

        class Secure(Looking, HTTPSConnection):
            scheme = "https"

        class Pool(HTTPConnectionPool):
            ConnectionCls = Looking

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.pools = {"http": Pool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have no way to connect but these."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools


def _shown(url: str) -> str:
    """Return the part of a URL that may be shown."""
    parts = _parts(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts and parts.netloc else "what was given"


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
