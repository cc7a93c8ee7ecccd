"""What the commands of `clickstream deploy` share: their options, clients, progress, and questions."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli import screen
from cli import setup as set_up
from clickstream.errors import Refused
from deploy.parts import NAMES, selected

if TYPE_CHECKING:
    from deploy.artifacts import Artifacts
    from deploy.aws import Clients
    from deploy.config import Environment
    from deploy.execute import Deployment
    from deploy.stacks import Stacks

BUILT: Final = Path("dist")
FLATTEN: Final = Path(__file__).resolve().parents[1] / "analytics" / "glue" / "flatten.py"

EnvironmentName = Annotated[
    str, typer.Option("--environment", "-e", help="Its file is deploy/environments/NAME.yaml.", metavar="NAME")
]
Only = Annotated[str | None, typer.Option(help=f"Only these parts, of {', '.join(NAMES)}.", metavar="PART[,PART]")]
Endpoint = Annotated[
    str | None, typer.Option(envvar="AWS_ENDPOINT_URL", help="Where AWS is, if not at Amazon.", metavar="URL")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Tell:
    """Progress on the screen; the line that changes is of whoever opened it."""

    def __init__(self) -> None:
        self.progress: screen.Progress | None = None

    def step(self, text: str) -> None:
        screen.step(text)

    def line(self, text: str) -> None:
        screen.out.print(f"  {text}", markup=False)

    def now(self, text: str) -> None:
        if self.progress is not None:
            self.progress.show(text)


@dataclass(slots=True)
class Session:
    """What each command works with."""

    environment: "Environment"
    clients: "Clients"
    stacks: "Stacks"
    tell: Tell

    def outputs(self, *names: str) -> list[str]:
        """Return outputs of the stacks that are there; `Refused` if one is missing."""
        found = {name: value for one in self.stacks.there().values() for name, value in one.outputs.items()}
        missing = [name for name in names if name not in found]
        if missing:
            raise Refused(
                f"no stack of environment {self.environment.name} says {', '.join(missing)}. "
                f"Next: clickstream deploy up --environment {self.environment.name}"
            )
        return [found[name] for name in names]


@contextmanager
def opened(environment: str, endpoint: str | None) -> Iterator[Session]:
    """Read an environment's file, see that the credentials are for its account, and show progress until the end."""
    from deploy import config, doctor  # noqa: PLC0415  # AWS' library takes a second
    from deploy.aws import Clients  # noqa: PLC0415
    from deploy.stacks import Stacks  # noqa: PLC0415

    read = config.read(environment)
    clients = Clients(read.region, endpoint)
    tell = Tell()
    try:
        with screen.progress() as progress:
            tell.progress = progress
            doctor.need_account(clients, read)
            yield Session(read, clients, Stacks(read, clients, tell, 0.2 if clients.at_stand_in else 5.0), tell)
    finally:
        clients.close()


def deployment_of(
    session: Session, only: str | None, *, delete_data: bool = False, built: "Artifacts | None" = None
) -> "Deployment":
    """Return what `plan` and `up` work on: all parts of the environment, or only some; `built` are zips of before."""
    from deploy import plan  # noqa: PLC0415
    from deploy.artifacts import Artifacts  # noqa: PLC0415
    from deploy.derived import TEMPLATES  # noqa: PLC0415
    from deploy.execute import Deployment  # noqa: PLC0415

    environment = session.environment
    parts = selected(only, environment.without)
    artifacts = built or Artifacts(BUILT, builders(environment.geo_database), session.tell)
    artifacts.tell = session.tell
    return Deployment(session.stacks, parts, plan.bodies(TEMPLATES), artifacts, delete_data)


def builders(geo_database: Path | None) -> Mapping[str, Callable[[Path], object]]:
    """Return who builds what is uploaded."""
    from deploy import package  # noqa: PLC0415

    def job(to: Path) -> None:
        if not set_up.JAR.is_file():
            raise Refused(f"the job's jar is not built: there is no {set_up.JAR}. Next: clickstream setup")
        package.build(to, set_up.JAR, geo_database)

    def a_lambda(name: str, to: Path) -> None:
        import_module("deploy.package").build_lambda(name, to)

    def flatten(to: Path) -> None:
        if not FLATTEN.is_file():
            raise Refused(f"there is no flatten script {FLATTEN}. Next: restore it, or leave out the part catalog")
        to.write_bytes(FLATTEN.read_bytes())

    lambdas = {"NamesLambdaKey": "names", "ScalingLambdaKey": "scaling", "OffersLambdaKey": "offers"}
    return {
        "JobKey": job,
        "FlattenScriptKey": flatten,
        **{parameter: partial(a_lambda, name) for parameter, name in lambdas.items()},
    }


def ask(question: str, yes: bool) -> None:
    """Go on if the answer is yes; `Refused` if it is no, or if there is nobody to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{question} There is nobody to answer. Next: the same command with --yes")
    if not typer.confirm(question):
        raise Refused("nothing was done")


@contextmanager
def going_on_by_itself(command: str, environment: str) -> Iterator[None]:
    """Say on Ctrl-C that AWS does not stop, and what takes its work up again."""
    try:
        yield
    except KeyboardInterrupt:
        again = f"clickstream deploy {command} --environment {environment}"
        screen.err.print(f"AWS goes on with the stack it is at; {again} takes it up again", markup=False)
        raise
