"""`clickstream deploy` and `clickstream doctor`: the platform on AWS, from a plan to nothing left."""

from json import dumps
from typing import Annotated

import typer

from cli import deploy_job, screen
from cli import setup as set_up
from cli.deploy_session import Endpoint, EnvironmentName, Only, Yes, ask, deployment_of, going_on_by_itself, opened
from clickstream.errors import Refused
from deploy.parts import selected, stack_name

app = typer.Typer(no_args_is_help=True, help="The platform on AWS: plan, create, look at, try out, and take away.")
app.add_typer(deploy_job.app, name="job")

EventsPerSecond = Annotated[
    float | None, typer.Option(min=0.001, help="For the estimated cost; else the environment's file says it.")
]


@app.command("plan")
def plan_command(
    environment: EnvironmentName = "dev",
    only: Only = None,
    events_per_second: EventsPerSecond = None,
    endpoint: Endpoint = None,
) -> None:
    """Print what `up` would create, change, replace or delete, and what a month would cost. Changes nothing.

    \b
    clickstream deploy plan
    clickstream deploy plan --environment staging --only streams,job
    clickstream deploy plan --events-per-second 1000
    """  # noqa: D301
    from cli.deploy_show import show_cost, show_plan  # noqa: PLC0415
    from deploy.cost import Workload  # noqa: PLC0415

    selected(only)  # a slip is said before AWS is asked
    with opened(environment, endpoint) as session:
        deployment = deployment_of(session, only)
        steps = deployment.plan()
        left_out = [part for part in session.environment.without if part in session.stacks.there()]
    show_plan(steps)
    if left_out:
        names = ",".join(left_out)
        screen.step(f"there, but left out by the environment's file: {names}. clickstream deploy down --only {names}")
    show_cost(Workload(events_per_second or session.environment.events_per_second), deployment.parts)


@app.command()
def up(
    *,
    environment: EnvironmentName = "dev",
    only: Only = None,
    yes: Yes = False,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Let what holds data be replaced or deleted.")
    ] = False,
    events_per_second: EventsPerSecond = None,
    endpoint: Endpoint = None,
) -> None:
    """Print the plan, ask, and do it: part by part, each resource told. Stopped half-way, the same command goes on.

    \b
    clickstream deploy up
    clickstream deploy up --environment staging --yes
    clickstream deploy up --only streams
    """  # noqa: D301
    from cli.deploy_show import show_cost, show_plan  # noqa: PLC0415
    from deploy.cost import Workload  # noqa: PLC0415
    from deploy.plan import refuse_to_lose  # noqa: PLC0415

    selected(only)  # a slip is said before AWS is asked
    with opened(environment, endpoint) as session:
        deployment = deployment_of(session, only, delete_data=delete_data)
        steps = deployment.plan()
    show_plan(steps)
    if not delete_data:
        refuse_to_lose(steps)
    if all(step.nothing for step in steps):
        screen.step("nothing to do")
        return
    show_cost(Workload(events_per_second or session.environment.events_per_second), deployment.parts)
    ask(f"Do this in environment {environment}?", yes)
    with opened(environment, endpoint) as session, going_on_by_itself("up", environment):
        deployment = deployment_of(session, only, delete_data=delete_data, built=deployment.artifacts)
        for step in deployment.up():
            screen.step(f"{step.wanted.part}: {'as it should be' if step.nothing else 'done'}")
        deploy_job.start_new_job(session, deployment.done)
    if only is None:
        screen.step(f"next: clickstream deploy smoke --environment {environment}")


@app.command()
def status(environment: EnvironmentName = "dev", endpoint: Endpoint = None) -> None:
    """Print each part's stack, and how the job is.

    \b
    clickstream deploy status
    """  # noqa: D301
    with opened(environment, endpoint) as session:
        there = session.stacks.there()
        names = {part: stack_name(session.environment.name, part) for part in there}
        rows = [[part, there[part].status, len(session.stacks.resources(name))] for part, name in names.items()]
        job = [found.outputs["JobName"] for found in there.values() if "JobName" in found.outputs]
        detail = deploy_job.job_of(session, job[0]).describe() if job else None
    if not rows:
        screen.step(f"nothing of environment {environment} is there. Next: clickstream deploy up")
        return
    screen.table(f"Environment {environment}", ["part", "stack", "resources"], rows, right=(2,))
    if detail is not None:
        screen.step(
            f"job {detail['ApplicationName']}: {detail['ApplicationStatus']}, version {detail['ApplicationVersionId']}"
        )
    troubled = [f"{part}: {found.why}" for part, found in there.items() if found.why and "FAILED" in found.status]
    for line in troubled:
        screen.err.print(line, markup=False)


@app.command()
def outputs(
    environment: EnvironmentName = "dev",
    json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    endpoint: Endpoint = None,
) -> None:
    """Print what the stacks hand on: the API's address, buckets, streams.

    \b
    clickstream deploy outputs
    clickstream deploy outputs --json | jq -r .ApiUrl
    """  # noqa: D301
    with opened(environment, endpoint) as session:
        there = session.stacks.there()
    rows = [[part, name, value] for part, found in there.items() for name, value in sorted(found.outputs.items())]
    if json:
        typer.echo(dumps({name: value for _, name, value in rows}, indent=2))
    elif rows:
        screen.table(f"Environment {environment}", ["part", "output", "value"], rows)
    else:
        screen.step(f"nothing of environment {environment} is there. Next: clickstream deploy up")


@app.command()
def down(
    environment: EnvironmentName = "dev",
    only: Only = None,
    delete_data: Annotated[bool, typer.Option("--delete-data", help="Delete the data too.")] = False,
    yes: Yes = False,
    endpoint: Endpoint = None,
) -> None:
    """Delete the stacks, last part first, and look whether anything is left. Data goes only if you say so.

    \b
    clickstream deploy down
    clickstream deploy down --delete-data
    clickstream deploy down --only redshift,quicksight
    """  # noqa: D301
    from deploy.down import Teardown  # noqa: PLC0415

    parts = selected(only) if only else None
    with opened(environment, endpoint) as session:
        teardown = Teardown(session.stacks, parts)
        ours, losses = teardown.ours(), teardown.losses()
    if losses:
        rows = [[loss.part, loss.name, loss.what] for loss in losses]
        screen.table("Data that would be lost", ["part", "where", "what"], rows)
        if not delete_data:
            raise Refused(
                "nothing was deleted, since this data would be lost. Next: copy what you need, and then "
                f"clickstream deploy down --environment {environment} --delete-data"
            )
    if ours:
        screen.step(f"to delete: {', '.join(ours)}")
        ask(f"Delete this from environment {environment}{', data included' if losses else ''}?", yes)
    with opened(environment, endpoint) as session, going_on_by_itself("down", environment):
        teardown = Teardown(session.stacks, parts)
        teardown.down()
        left = [] if parts else teardown.left()
    if left:
        screen.table("Still there", ["kind", "name"], [[one.kind, one.name] for one in left])
        raise Refused(
            "not everything is gone. Next: the same command again in an hour; delete by hand what is then left"
        )
    gone = ", ".join(parts) if parts else "nothing is left"
    screen.step(f"environment {environment}: {f'without {gone}' if parts else gone}")


@app.command()
def smoke(
    environment: EnvironmentName = "dev",
    events: Annotated[int, typer.Option(min=2, max=1000, help="How many.")] = 10,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for them.")] = 600.0,
    api_key: Annotated[
        str | None, typer.Option(help="Where the API's key is: env:NAME or secretsmanager:NAME.")
    ] = None,
    endpoint: Endpoint = None,
) -> None:
    """POST events through the API, and wait until they are in the lake and in the offers stream.

    \b
    clickstream deploy smoke
    clickstream deploy smoke --api-key env:CLICKSTREAM_API_KEY
    """  # noqa: D301
    from cli.smoke import Smoke  # noqa: PLC0415
    from connectors.secrets import secret  # noqa: PLC0415

    with opened(environment, endpoint) as session:
        api, lake, offers = session.outputs("ApiUrl", "LakeBucket", "OffersStreamName")
        key = secret(api_key) if api_key else None
        Smoke(session.clients, session.tell, api, lake, offers, key, patience).run(events)
    screen.step("it works")


@app.command()
def cost(
    events_per_second: Annotated[list[float], typer.Option(min=0.001, help="Once for each column.")],
    events_per_request: Annotated[
        float, typer.Option(min=1, max=500, help="1 is POST /event; more, POST /events.")
    ] = 1.0,
) -> None:
    """Print the estimated cost of a month as a table for a document.

    \b
    clickstream deploy cost --events-per-second 10 --events-per-second 1000
    """  # noqa: D301
    from deploy.cost import Workload, assumptions, markdown, read_prices  # noqa: PLC0415

    prices, load = read_prices(), Workload(events_per_second[0], events_per_request)
    typer.echo(markdown(events_per_second, prices, load))
    typer.echo()
    for sentence in assumptions(load, prices):
        typer.echo(f"- {sentence}")


def doctor(environment: EnvironmentName = "dev", endpoint: Endpoint = None) -> None:
    """Look whether everything that `deploy up` needs is there: versions, credentials, region, quotas, connectivity.

    \b
    clickstream doctor
    clickstream doctor --environment staging
    """  # noqa: D301
    from deploy import config  # noqa: PLC0415
    from deploy.aws import Clients  # noqa: PLC0415
    from deploy.doctor import examine  # noqa: PLC0415

    read = config.read(environment)
    clients = Clients(read.region, endpoint)
    found = []
    try:
        with screen.progress() as progress:
            for check in examine(read, clients, set_up.JAR):
                progress.show(f"looked at {check.about}")
                found.append(check)
    finally:
        clients.close()
    signs = {"ok": "✓", "look": "!", "bad": "✗"}
    rows = [[signs[one.verdict], one.about, one.found, one.then] for one in found]
    screen.table(f"Environment {environment} in {read.region}", ["", "what", "found", "next"], rows)
    bad = sum(one.verdict == "bad" for one in found)
    if bad:
        raise Refused(f"{bad} of {len(found)} checks say that deploying would fail. Next: the last column")
    screen.step("ready to deploy: clickstream deploy plan")
