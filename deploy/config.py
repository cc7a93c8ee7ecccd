"""The configuration of an environment, read from `deploy/environments/NAME.yaml`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from clickstream.errors import Refused
from deploy import template
from deploy.derived import TEMPLATES
from deploy.parts import NAMES, PARTS, nearest

ENVIRONMENTS: Final = Path(__file__).parent / "environments"

_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,11}")  # without a hyphen: no environment's names begin with another's
_KEYS: Final = {
    "region": "region: eu-central-1",
    "account": 'account: "123456789012"',
    "events_per_second": "events_per_second: 100",
    "geo_database": "geo_database: .data/geo/GeoLite2-City.mmdb",
    "without": "without: [redshift]",
    "tags": "tags: {team: shop}",
    "parameters": "parameters: {streams: {ClicksShards: 2}}",
}
_OPTIONAL: Final = tuple(part.name for part in PARTS if part.optional)


@dataclass(frozen=True, slots=True)
class Environment:
    """What a person decides about one environment; everything else is a template's default."""

    name: str
    file: Path
    region: str
    account: str | None = None  # if given, no other account is touched
    events_per_second: float = 100.0
    geo_database: Path | None = None
    without: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by part


def read(name: str, folder: Path = ENVIRONMENTS, templates: Path = TEMPLATES) -> Environment:
    """Read an environment's file by its name or path; `Refused` names the file, the key, and what to write there."""
    path = Path(name)
    if path.suffix == ".yaml":
        name, folder = path.stem, path.parent
    if not _NAME.fullmatch(name):
        raise Refused(
            f"{name!r} cannot name an environment: it takes 1 to 12 small letters and digits, a letter first. "
            "Next: --environment dev"
        )
    file = folder / f"{name}.yaml"
    try:
        found = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        there = ", ".join(sorted(one.stem for one in folder.glob("*.yaml"))) or "none"
        raise Refused(
            f"there is no {file}; environments with a file: {there}. Next: copy {folder / 'dev.yaml'} there"
        ) from None
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise Refused(f"{file} cannot be read: {error}") from None
    given = _Mapping(file, "", {} if found is None else found)
    given.allow(_KEYS)
    return Environment(
        name=name,
        file=file,
        region=given.text("region"),
        account=given.text("account", required=False),
        events_per_second=given.number("events_per_second", 100.0),
        geo_database=Path(path) if (path := given.text("geo_database", required=False)) else None,
        without=given.left_out(),
        tags=given.texts("tags"),
        parameters=_parameters(file, given, templates),
    )


def _parameters(file: Path, given: "_Mapping", templates: Path) -> dict[str, Mapping[str, str]]:
    by_part = given.below("parameters")
    by_part.allow(NAMES)
    read: dict[str, Mapping[str, str]] = {}
    for part in by_part.values:
        source = templates / f"{part}.yaml"
        if not source.is_file():
            raise Refused(f"{file}: parameters.{part} has no template {source}")
        known = template.parameters(source.read_text())
        settable = {name: said for name, said in known.items() if name != "Environment"}
        values = by_part.below(part)
        values.allow(settable)
        read[part] = values.all_texts()
        for name, value in read[part].items():
            if complaint := template.complaint(settable[name], value):
                raise Refused(f"{file}: parameters.{part}.{name} is {value!r}, but {complaint}")
    return read


@dataclass(frozen=True, slots=True)
class _Mapping:
    """A mapping of the file, which knows where it is in it."""

    file: Path
    path: str
    found: Any

    @property
    def values(self) -> dict[str, Any]:
        if not isinstance(self.found, dict) or not all(isinstance(key, str) for key in self.found):
            raise Refused(f"{self.file}: {self.path.rstrip('.') or 'it'} is not a mapping of names to values")
        return self.found

    def allow(self, keys: Any) -> None:
        for key in self.values:
            if key not in keys:
                known = f". Its keys are {', '.join(keys)}" if keys else ""
                raise Refused(f"{self.file}: there is no key {self.path}{key}{nearest(key, keys)}{known}")

    def below(self, key: str) -> "_Mapping":
        value = self.values.get(key)
        return _Mapping(self.file, f"{self.path}{key}.", {} if value is None else value)

    def text(self, key: str, *, required: bool = True) -> Any:
        value = self.values.get(key)
        if value is None:
            if required:
                raise Refused(f"{self.file}: the key {self.path}{key} is missing. Next: write {_KEYS[key]}")
            return None
        return self._text(key, value)

    def number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise Refused(f"{self.file}: {self.path}{key} is {value!r}, but it is a number above 0, as in {_KEYS[key]}")
        return float(value)

    def left_out(self) -> tuple[str, ...]:
        value = self.values.get("without") or []
        if not isinstance(value, list):
            raise Refused(f"{self.file}: without is not a list, as in {_KEYS['without']}")
        for name in value:
            if name not in _OPTIONAL:
                hint = nearest(str(name), _OPTIONAL)
                raise Refused(
                    f"{self.file}: without has {name!r}, which is no part that can be left out{hint}. "
                    f"Those are {', '.join(_OPTIONAL)}"
                )
        return tuple(value)

    def texts(self, key: str) -> dict[str, str]:
        return self.below(key).all_texts()

    def all_texts(self) -> dict[str, str]:
        return {key: self._text(key, value) for key, value in self.values.items()}

    def _text(self, key: str, value: Any) -> str:
        if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
            return ",".join(self._text(key, one) for one in value)
        if value is None or isinstance(value, list | dict):
            raise Refused(f"{self.file}: {self.path}{key} is {value!r}, but it is a text, a number or true or false")
        return str(value).lower() if isinstance(value, bool) else str(value)
