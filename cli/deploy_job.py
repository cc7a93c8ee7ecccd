"""`clickstream deploy job`: the Managed Flink job started, stopped, updated, and rolled back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.deploy_session import BUILT, Endpoint, EnvironmentName, Session, Yes, ask, builders, opened

if TYPE_CHECKING:
    from deploy.job import Application

app = typer.Typer(no_args_is_help=True, help="The Managed Flink job: start, stop, update, roll back.")


@app.command("start")
def job_start(
    environment: EnvironmentName = "dev",
    snapshot: Annotated[str, typer.Option(help="The name of one, latest, or none.")] = "latest",
    skip_lost_state: Annotated[
        bool, typer.Option("--skip-lost-state", help="Leave out what the snapshot has and this version does not.")
    ] = False,
    endpoint: Endpoint = None,
) -> None:
    """Start the job where its latest snapshot left off.

    \b
    clickstream deploy job start
    clickstream deploy job start --snapshot clickstream-20261124-101500
    """  # noqa: D301
    with opened(environment, endpoint) as session:
        the_job(session).start(None if snapshot == "none" else snapshot, skip_lost_state=skip_lost_state)


@app.command("stop")
def job_stop(
    environment: EnvironmentName = "dev",
    force: Annotated[bool, typer.Option("--force", help="At once and without a snapshot.")] = False,
    endpoint: Endpoint = None,
) -> None:
    """Stop the job with a snapshot.

    \b
    clickstream deploy job stop
    """  # noqa: D301
    with opened(environment, endpoint) as session:
        the_job(session).stop(force=force)


@app.command("update")
def job_update(environment: EnvironmentName = "dev", endpoint: Endpoint = None) -> None:
    """Build the job's zip, take a snapshot, and have the job go on from it with the new code.

    \b
    clickstream deploy job update
    """  # noqa: D301
    from deploy.artifacts import Artifacts  # noqa: PLC0415

    with opened(environment, endpoint) as session:
        [bucket] = session.outputs("ArtifactsBucket")
        job = the_job(session)
        artifacts = Artifacts(BUILT, builders(session.environment.geo_database), session.tell)
        artifacts.upload("JobKey", session.clients, bucket)
        job.update(bucket, artifacts.key("JobKey"))


@app.command("rollback")
def job_rollback(environment: EnvironmentName = "dev", yes: Yes = False, endpoint: Endpoint = None) -> None:
    """Go back to the version before, and to the snapshot taken before it was left.

    \b
    clickstream deploy job rollback
    """  # noqa: D301
    ask(f"Go back to the version before in environment {environment}?", yes)
    with opened(environment, endpoint) as session:
        the_job(session).rollback()


def job_of(session: Session, name: str) -> "Application":
    """Return a job by its name."""
    from deploy.job import Application  # noqa: PLC0415

    return Application(name, session.clients, session.tell, session.stacks.poll)


def the_job(session: Session) -> "Application":
    """Return the environment's job."""
    [name] = session.outputs("JobName")
    return job_of(session, name)


def start_new_job(session: Session, done: Sequence[str]) -> None:
    """Start a job that was just created; one that somebody has stopped stays stopped."""
    if "job" in done:
        job = the_job(session)
        if job.describe()["ApplicationStatus"] == "READY" and not job.snapshots():
            job.start(None)
