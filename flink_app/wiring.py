"""Who plays which part: the doors that the settings name, put behind the pure functions. Knows nothing of Flink."""

from connectors.secrets import secret

from clickstream.place import GeoProvider
from clickstream.settings import Settings
from connectors.geo_ipinfo import IpInfo
from connectors.geo_mmdb import Mmdb
from connectors.redis_door import RedisDoor
from enrichment.answers import Background, LayeredAnswers
from enrichment.memory import Memory
from enrichment.process import Process
from enrichment.steps import enrichment


def process(settings: Settings) -> Process:
    """Open what the batch function needs. A door that refuses us stops the job here, before it has read anything."""
    redis = RedisDoor.connect(settings.redis.url, secret(settings.redis.password), timeout=settings.redis.timeout)
    redis.check()
    answers = LayeredAnswers(
        places=Memory(settings.job.remembered_places),
        names=Memory(settings.job.remembered_names),
        shared=redis,
        provider=geo_provider(settings),
        background=Background(),
        budget=settings.geo.budget,
    )
    return Process(enrichment(answers, redis), archive=settings.lake.raw)


def geo_provider(settings: Settings) -> GeoProvider:
    """Open the geo provider that the settings name."""
    if settings.geo.provider == "ipinfo":
        return IpInfo(token=secret(settings.geo.ipinfo_token), base_url=settings.geo.ipinfo_url)
    return Mmdb(settings.geo.mmdb)
