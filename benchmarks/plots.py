"""Speed-up by shape, and cost by T, H, B and L."""

from pathlib import Path

import matplotlib
import numpy as np

from .measuring import OURS, SWEEPS, Measured
from .timing import ratio

matplotlib.use("Agg")
from matplotlib import pyplot

PAIRS = {
    "torch": ("rnnzoo torch", ("torch.nn.RNN",)),
    "TensorFlow": ("rnnzoo tf", ("keras graph", "keras XLA")),
    "NumPy": ("rnnzoo numpy", ("NumPy loop",)),
}


def plot(path: Path, shapes: list[Measured], sweeps: dict[str, list[Measured]]) -> None:
    """Write the picture."""
    figure, axes = pyplot.subplots(1, 5, figsize=(22, 4), layout="constrained")
    measured = [each for each in shapes if each.mode == "fb"]
    for place, (label, (own, rivals)) in enumerate(PAIRS.items()):
        gains = [min(ratio(each.times[rival], each.times[own]) for rival in rivals) for each in measured]
        axes[0].bar(np.arange(len(gains)) + 0.25 * place, gains, 0.25, label=label)
    axes[0].set_xticks(np.arange(len(measured)) + 0.25, [each.problem.text for each in measured], fontsize=7)
    axes[0].axhline(1, color="black", linewidth=0.5)
    axes[0].set_title("forward and backward: times faster than the framework's own")
    axes[0].legend()
    for axis, (size, each) in zip(axes[1:], sweeps.items(), strict=True):
        for own in OURS:
            values = [getattr(problem, size) for problem in SWEEPS[size]]
            axis.loglog(values, [1e3 * m.times[own].seconds for m in each], marker="o", label=own)
        axis.set_title(f"milliseconds by {size}")
        axis.legend()
    figure.savefig(path)
    pyplot.close(figure)
