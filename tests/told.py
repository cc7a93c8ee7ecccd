"""Progress that tests look at instead of a person."""


class Told:
    """Keeps what was told; at the line with the word `interrupt_at` somebody types Ctrl-C, once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.interrupt_at: str | None = None

    def step(self, text: str) -> None:
        self.lines.append(text)
        if self.interrupt_at and self.interrupt_at in text:
            self.interrupt_at = None
            raise KeyboardInterrupt

    line = now = step
