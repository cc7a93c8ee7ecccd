"""What a plan and its cost look like."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from cli import screen
from deploy.cost import Line, Workload, assumptions, by_part, estimate, read_prices
from deploy.plan import Step

_SIGNS: Final = {"create": "+", "change": "~", "may be replaced": "±", "replace": "±", "delete": "-"}
_STYLES: Final = {"+": "green", "~": "yellow", "±": "red", "-": "red"}
_DONE: Final = {
    "create": "to create",
    "change": "to change",
    "may be replaced": "that may be replaced",
    "replace": "to replace",
    "delete": "to delete",
}


def show_plan(steps: Sequence[Step]) -> None:
    """Print what happens to each resource, by part."""
    counts: Counter[str] = Counter()
    for step in steps:
        title = {"create": "new", "recreate": "new", "keep": "no changes", "update": "changes"}.get(
            step.action, step.action
        )
        if step.nothing:
            title = "no changes"
        screen.out.print(Text.assemble((f"{step.wanted.part}: ", "bold"), title, f" ({step.why})" if step.why else ""))
        for change in step.changes or ():
            sign = _SIGNS[change.what]
            counts[change.what] += 1
            warning = "  holds data" if change.loses_data else ""
            line = f"  {sign} {change.name}  {change.type}  {change.what}{warning}"
            screen.out.print(Text(line, style=_STYLES[sign]))
        later = [f"{name} {value}" for name, value in step.wanted.parameters.items() if not isinstance(value, str)]
        if later and step.action == "update":
            screen.out.print(f"  and what follows from {', '.join(later)}", markup=False)
    said = ", ".join(f"{number:,} {_DONE[what]}" for what, number in counts.items())
    screen.step(f"plan: {said or 'no changes'}")


def show_cost(
    load: Workload,
    parts: Sequence[str],
) -> None:
    """Print what a month costs, by part, and what that stands on."""
    prices = read_prices()
    lines = estimate(load, prices, parts)
    totals = by_part(lines)
    rows = [[part, _dollars(total), _largest(lines, part)] for part, total in totals.items()]
    rows.append(["all", _dollars(sum(totals.values())), ""])
    title = f"Estimated cost of a month at {load.events_per_second:,.0f} events/s, in US dollars"
    screen.table(title, ["part", "dollars", "mostly"], rows, right=(1,))
    for sentence in assumptions(load, prices):
        screen.out.print(f"  {sentence}", markup=False)


def _largest(lines: Sequence[Line], part: str) -> str:
    return next(f"{line.what}: {_dollars(line.dollars)}" for line in lines if line.part == part)


def _dollars(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 10 else f"{amount:,.2f}"
