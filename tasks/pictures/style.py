"""How all pictures look: one palette that colour-blind people can tell apart, light axes, labels with units."""

from pathlib import Path
from typing import Any

from ..task import needed

# Okabe and Ito 2008.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
GREY, PALE = "#666666", "#DDDDDD"
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#000000")
DASHES = ("-", "--", ":", "-.")
RESOLUTION = 120  # dots per inch


def figure(width: float, height: float, title: str) -> Any:
    """An empty figure, in inches. Raises BackendError where matplotlib is not installed."""
    made = needed("matplotlib.figure", "matplotlib", "plots").Figure((width, height), layout="constrained")
    made.suptitle(title, fontsize=11)
    return made


def axes(place: Any, x: str, y: str, title: str = "") -> Any:
    """Axes with labels, a faint grid, and no box around them."""
    made = place.add_subplot() if hasattr(place, "add_subplot") else place
    made.set(xlabel=x, ylabel=y)
    made.set_title(title, fontsize=10)
    made.grid(color=PALE, linewidth=0.6)
    made.set_axisbelow(True)
    made.spines[["top", "right"]].set_visible(False)
    return made


def line(number: int) -> dict[str, Any]:
    """Colour and dashes of the so-manieth line; the first 28 differ."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def words(name: str) -> str:
    """A metric's name as a person writes it."""
    return name.replace("_", " ")


def save(picture: Any, path: Path) -> Path:
    """Write a PNG."""
    picture.savefig(path, dpi=RESOLUTION)
    return path
