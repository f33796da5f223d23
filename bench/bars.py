"""What the bench must show: a bar, what was measured, and whether that is enough."""

from dataclasses import dataclass


@dataclass
class Bar:
    what: str
    bar: str
    measured: str
    reached: bool

    def row(self) -> str:
        return f"| {self.what} | {self.bar} | {self.measured} | {'yes' if self.reached else '**no**'} |"
