"""What a command shows: progress while it works, then tables. Plain lines where there is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS: Final = 5.0
"""How often a line of progress is printed where it cannot be overwritten."""

PLAIN_COLUMNS: Final = 160
"""How wide tables may be where there is no terminal to fit into."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_COLUMNS)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Progress:
    """One line that changes while something is under way."""

    def __init__(self, live: Live | None, console: Console) -> None:
        self._live = live
        self._console = console
        self._printed = time.monotonic()

    def show(self, line: str) -> None:
        """Show how far it is."""
        if self._live is not None:
            self._live.update(Text(f"  {line}", style="dim"))
        elif time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._console.print(f"  {line}", markup=False)


@contextmanager
def progress(console: Console = out) -> Iterator[Progress]:
    """Keep a line of progress on the screen; on `err` where the output is for another program."""
    if not console.is_terminal:
        yield Progress(None, console)
        return
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield Progress(live, console)


def step(text: str) -> None:
    """Say what comes next."""
    out.print(Text.assemble(("▸ ", "cyan"), text))


def printable(text: str, *, kept: str = "") -> str:
    """Show what could steer a terminal, as a stranger's text may, as a sign that something was there."""
    return "".join(each if each.isprintable() or each in kept else "\N{REPLACEMENT CHARACTER}" for each in text)


def table(title: str, columns: list[str], rows: list[list[Any]], *, right: tuple[int, ...] = ()) -> None:
    """Print rows; numbers with thousands separated, in the columns that are aligned right."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(
            *(
                Text(f"{cell:,}" if isinstance(cell, int) else "" if cell is None else printable(str(cell), kept="\n"))
                for cell in row
            )
        )
    out.print()
    out.print(grid)
