"""Where addresses are, asked of ipinfo.io over HTTP."""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from random import Random
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from clickstream.errors import ClickstreamError, Refused, Unavailable
from clickstream.place import Place
from connectors.breaker import CircuitBreaker
from connectors.ipinfo_answer import read_batch, read_single
from connectors.pauses import asked_for, backoff

MAX_BATCH: Final = 1_000  # addresses a request, https://ipinfo.io/developers/batch-enrichment-api
MAX_ANSWER_BYTES: Final = 4 << 20  # 4 KiB an address; the fullest answers have 1 or 2

_LONGEST_PAUSE: Final = 5.0  # seconds between attempts; told to wait longer, we say `Unavailable`
_LONGEST_REST: Final = 3_600.0  # seconds, whatever Retry-After asks for: a larger quota is noticed within the hour
_UNTOLD_REST: Final = 60.0  # seconds after a 429 without Retry-After, which is how a used-up quota looks
_REFUSED_REST: Final = 60.0  # seconds before a wrong token or URL is tried again
_BUSY: Final = {408, 429, *range(500, 600)}
_NO_CONNECTION: Final = (requests.ConnectionError, urllib3.exceptions.ProtocolError)
_TOO_SLOW: Final = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)
_TOKEN: Final = re.compile(r"[!-~]+")
_NEXT: Final = (
    "Next: put a valid one into the environment variable IPINFO_TOKEN, "
    "or into the secret named in the settings, group geo, key `ipinfo.token`"
)


@dataclass(frozen=True, slots=True)
class _Question:
    """One request, and how to read what is answered."""

    method: str
    path: str
    body: bytes | None
    read: Callable[[bytes], dict[str, Place | None]]


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why there is no answer, whether it may pass, and the seconds we are asked to wait."""

    why: str
    passing: bool = False
    rest: float | None = None


def keep_alive(connections: int = 8) -> requests.Session:
    """Open a session that keeps as many connections open, one for each thread that asks, and no cookies."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return session


@dataclass(frozen=True, slots=True)
class IpInfo:
    """Asks about up to 1,000 addresses a request; without a token about each by itself, for trying things out.

    Batches are for those with a token. Without one, ipinfo.io answers single look-ups only, and about a thousand a day.

    Asking twice is harmless but may cost twice. So a broken connection, a 408 or a 5xx is tried again after growing
    pauses, while a request that was taken and not answered in time is not: it may be paid for already. A 429 is obeyed
    by all threads, up to an hour. `find` ends within about `patience` seconds: what was not answered by then is left
    out, as is an address whose entry cannot be understood. No answer at all is `Unavailable`, and after five failures
    in a row it is so at once for half a minute. A token that is not accepted is `Refused`, once a minute.

    No message names an address, an answer or the token. Threads may share it.
    """

    token: str | None = field(default=None, repr=False)
    base_url: str = "https://ipinfo.io"
    session: requests.Session = field(default_factory=keep_alive, repr=False)
    breaker: CircuitBreaker = field(default_factory=lambda: CircuitBreaker(name="ipinfo.io"), repr=False)
    attempts: int = 3
    connect_timeout: float = 2.0  # seconds, as are the next two
    read_timeout: float = 5.0
    patience: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    rng: Random = field(default_factory=Random, repr=False)

    metered = True

    def __post_init__(self) -> None:
        if not _keeps_secrets(self.base_url):
            raise Refused(
                "the settings, group geo, key `ipinfo.url`: it has to look like https://ipinfo.io, with no name, "
                "password or query; http:// would show the token to the network, so it may only lead to this machine"
            )
        if self.token is None:
            # A single look-up has the address in its URL, which urllib3 writes into its log.
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        elif not _TOKEN.fullmatch(self.token):
            raise Refused(f"the token for ipinfo.io is empty, or holds a space or another character none has. {_NEXT}")

    def find(self, addresses: Sequence[str]) -> Mapping[str, Place | None]:
        """Answer what can be answered in time."""
        deadline = self.clock() + self.patience
        found: dict[str, Place | None] = {}
        for question in self._questions(list(dict.fromkeys(addresses))):
            try:
                found |= self._answers(question, deadline)
            except ClickstreamError:
                if not found:
                    raise
                break  # what is paid for is kept, and the next call will meet the trouble again
        if addresses and not found:
            raise Unavailable(f"{self._origin} said nothing that could be used. {self._look}")
        return found

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def _questions(self, addresses: Sequence[str]) -> Iterator[_Question]:
        if self.token is None:
            for address in addresses:
                read = partial(read_single, address=address)
                yield _Question("GET", f"/{quote(address, safe=':')}/json", None, read)
        else:
            for start in range(0, len(addresses), MAX_BATCH):
                some = addresses[start : start + MAX_BATCH]
                yield _Question("POST", "/batch", msgspec.json.encode(some), partial(read_batch, addresses=some))

    def _answers(self, question: _Question, deadline: float) -> dict[str, Place | None]:
        """Ask, and tell the breaker whether that was of any use."""
        found = question.read(self._ask(question, deadline))
        if found:
            self.breaker.success()
        else:
            self.breaker.failure()
        return found

    def _ask(self, question: _Question, deadline: float) -> bytes:
        attempt = 0
        while True:
            attempt += 1
            self.breaker.allow()
            answer = self._ask_once(question, deadline)
            if isinstance(answer, bytes):
                return answer
            self.breaker.failure(retry_after=answer.rest)
            pause = max(backoff(attempt, self.rng), self.breaker.rest)
            hopeless = not answer.passing or attempt >= self.attempts
            if hopeless or pause > _LONGEST_PAUSE or self.clock() + pause >= deadline:
                rest = math.ceil(self.breaker.rest)
                left_alone = f", and is left alone for {rest} s" if rest else ""
                raise Unavailable(f"{self._origin} {answer.why} at attempt {attempt}{left_alone}. {self._look}")
            self.sleep(pause)

    def _ask_once(self, question: _Question, deadline: float) -> bytes | _Trouble:
        left = max(0.05, deadline - self.clock())
        timeouts = min(self.connect_timeout, left), min(self.read_timeout, left)
        try:
            with self.session.request(
                question.method,
                f"{self.base_url.rstrip('/')}{question.path}",
                data=question.body,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",  # a small answer cannot unpack into a large one
                    "Content-Type": "application/json",
                },
                auth=self._sign,
                timeout=timeouts,
                allow_redirects=False,
                stream=True,
                proxies={"http": ""},  # http is for this machine: a proxy would see the token
            ) as answer:
                if answer.status_code == 200:
                    return self._body(answer, deadline)
                status, rest = answer.status_code, asked_for(answer.headers.get("Retry-After"), _LONGEST_REST)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if isinstance(error, _TOO_SLOW):
                return _Trouble(f"did not answer within {timeouts[1]:g} s")
            passing = isinstance(error, _NO_CONNECTION) and not isinstance(error, requests.exceptions.SSLError)
            return _Trouble(f"could not be asked ({type(error).__name__})", passing)
        # From here on no error of requests is being handled: its text would show the URL in a traceback.
        if status in _BUSY:
            untold = _UNTOLD_REST if status == 429 else None
            return _Trouble(f"answered {status}", passing=True, rest=untold if rest is None else rest)
        self.breaker.failure(retry_after=_REFUSED_REST)
        raise Refused(f"{self._origin} answered {status}: {self._advice(status)}")

    def _body(self, answer: requests.Response, deadline: float) -> bytes | _Trouble:
        body = bytearray()
        while some := answer.raw.read1(1 << 16, decode_content=False):
            body += some
            if len(body) > MAX_ANSWER_BYTES:
                return _Trouble(f"answered with more than {MAX_ANSWER_BYTES:,} bytes")
            if self.clock() >= deadline:
                return _Trouble(f"did not end its answer within {self.patience:g} s")
        return bytes(body)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token. An `auth` of our own also keeps requests from adding a password out of a .netrc instead."""
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def _advice(self, status: int) -> str:
        if status not in {401, 403}:
            return (
                "that is no ipinfo.io. Next: check the settings, group geo, key `ipinfo.url`; no redirect is followed"
            )
        if self.token is None:
            return f"it wants a token. {_NEXT}"
        return f"it does not accept the token, or not for batches, which take a paid plan. {_NEXT}"

    @property
    def _origin(self) -> str:
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def _look(self) -> str:
        return f"Next: see whether it is up, curl -i {self._origin}, and what is left of the quota"


def _keeps_secrets(url: str) -> bool:
    """Whether a token may go there, and the URL may be shown in a message."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_here = host == "localhost" or (parts.scheme == "http" and ip_address(host).is_loopback)
    except ValueError:
        return False
    plain = bool(host) and not set("@?#\\") & set(url)
    return plain and (parts.scheme == "https" or (parts.scheme == "http" and is_here))
