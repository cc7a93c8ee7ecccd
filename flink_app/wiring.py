"""Who plays which part: the doors that the settings name, put behind the pure functions. Knows nothing of Flink."""

import sys
from pathlib import Path
from typing import Final

from clickstream.address import HiddenAddresses
from clickstream.errors import Refused
from clickstream.place import GeoProvider
from clickstream.settings import Settings
from connectors.breaker import State
from connectors.geo_ipinfo import IpInfo
from connectors.geo_mmdb import Mmdb
from connectors.redis_door import RedisDoor
from connectors.secrets import secret
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.metrics import Metrics
from enrichment.places import PlaceMemory
from enrichment.process import Process
from enrichment.steps import enrichment

KEY_LENGTH: Final = 16


def process(settings: Settings) -> Process:
    """Open what the batch function needs."""
    hide = hidden_addresses(settings)
    redis = RedisDoor.connect(
        settings.redis.url,
        secret(settings.redis.password),
        timeout=settings.redis.timeout,
        known_as=hide.hash if hide else None,
    )
    provider = geo_provider(settings)
    metrics = Metrics()
    answers = LayeredAnswers(
        places=PlaceMemory(settings.job.remembered_places),
        names=Memory(settings.job.remembered_names),
        shared=redis,
        provider=provider,
        background=Background(),
        budget=settings.geo.budget,
        metrics=metrics,
    )
    metrics.watch("redis_breaker", lambda: _AS_NUMBER[redis.breaker])
    if isinstance(provider, IpInfo):
        metrics.watch("provider_breaker", lambda: _AS_NUMBER[provider.breaker.state])
    return Process(
        enrichment(answers, redis, metrics),
        archive=settings.lake.raw,
        offers=settings.offers.enabled,
        hide=hide,
        metrics=metrics,
    )


_AS_NUMBER: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


def check(settings: Settings) -> None:
    """Open the doors once and close them again, before the job starts: `Refused` for one that will not let us in."""
    redis = RedisDoor.connect(settings.redis.url, secret(settings.redis.password), timeout=settings.redis.timeout)
    redis.check()
    redis.close()
    hidden_addresses(settings)
    geo_provider(settings).close()


def hidden_addresses(settings: Settings) -> HiddenAddresses | None:
    """Prepare what hides addresses; None where they are kept."""
    how = settings.privacy.ip
    if how == "keep":
        return None
    key = secret(settings.privacy.key, setting="the group privacy, key") or ""
    if len(key) < KEY_LENGTH:
        raise Refused(
            f"ip is {how} in the group privacy, and its key has fewer than {KEY_LENGTH} characters. Next: make one, "
            "openssl rand -hex 32, keep it where secrets are, and set key to where that is: secretsmanager:NAME"
        )
    return HiddenAddresses(how, key.encode())


def geo_provider(settings: Settings) -> GeoProvider:
    """Open the geo provider that the settings name."""
    if settings.geo.provider == "ipinfo":
        return IpInfo(token=secret(settings.geo.ipinfo_token), base_url=settings.geo.ipinfo_url)
    return Mmdb(_database(settings.geo.mmdb))


def _database(name: str) -> Path:
    """Find the database: in the working folder, or wherever Python finds modules, as in the `dep/` of our zip."""
    for folder in ("", *sys.path):
        file = Path(folder, name)
        if file.is_file():
            return file
    raise Refused(
        f"there is no geo database {name} in {Path.cwd()}, nor in a folder of Python's path. Next: take one along with"
        f" `clickstream package --geo-database FILE`, and set mmdb in the group geo to geo/ and its name"
    )
