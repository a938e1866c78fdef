"""How long the suite goes on with an implementation that hangs or crashes."""

from dataclasses import dataclass, field

from .items import Item
from .outcomes import Outcome

HANGS = 2  # items in which an implementation hung: each costs all the seconds that it may take
CRASHES = 5  # items in a row in which its process ended, and was started again


@dataclass
class Patience:
    """With those who run items of one implementation, each of whom has a patience of its own.

    Attributes:
        hung: names of items that hung; shared by all of them.
        crashed: names of items that crashed, since the last one that did not.
    """

    hung: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        """Take an outcome into account; a skipped item asked nothing of the implementation."""
        if outcome.ended == "hung":
            self.hung.append(outcome.item.name)
        elif outcome.ended == "crashed":
            self.crashed.append(outcome.item.name)
        elif outcome.verdict != "skipped":
            self.crashed.clear()

    @property
    def lost(self) -> str | None:
        """Why the implementation is given up, or None."""
        if len(self.hung) >= HANGS:
            return f"it hung in {HANGS} items and was given up ({', '.join(self.hung[:HANGS])})"
        if len(self.crashed) >= CRASHES:
            return f"it crashed in {CRASHES} items in a row and was given up ({', '.join(self.crashed)})"
        return None

    def not_run(self, item: Item) -> Outcome:
        """The outcome of an item of an implementation that was given up."""
        return Outcome(item, "failed", (), f"not run: {self.lost}", ran=False)
