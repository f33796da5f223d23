"""How much is measured: the short form, the full one, and a tiny one that only shows that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    form: str
    rounds: int
    scale: float  # of the number of jobs that fits the full form
    long: float   # of a bar's own number: 5,000,000 jobs kept and the like

    def jobs(self, full: int) -> int:
        return max(int(full * self.scale), 20)

    def millions(self, full: int) -> int:
        return max(int(full * self.long), 100)

    def few(self, full: int, short: int) -> int:
        """A number of samples or pairs."""
        return {"full": full, "short": short, "smoke": 2}[self.form]

    @classmethod
    def of(cls, options) -> "Sizes":
        if options.smoke:
            return cls("smoke", options.rounds or 1, 0.01, 0.001)
        if options.full:
            return cls("full", options.rounds or 5, 1.0, 1.0)
        return cls("short", options.rounds or 2, 0.5, 0.1)
