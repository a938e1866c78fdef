"""Sequences in parts, each run again when its gradient is due, from the states before it (SPEC.md, 13.4).

A part begins from the state before it in its forward direction, and from the state after it in its backward one. Only a
layer's input tells its states, so that they are had layer by layer, and each direction part by part in its own order.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..spec.errors import UnsupportedError
from ..spec.recomputing import parts

States = dict[str, Tensor]
Run = Callable[[Tensor, Tensor | None, States], tuple[tuple[Tensor, ...], States]]


def recomputed(
    run: Run, inputs: Tensor, valid: Tensor | None, initial: States, directions: int
) -> tuple[list[Tensor], States]:
    """What a model gives for whole sequences, of which the states that each part begins from are kept alone.

    Args:
        run: of the inputs (B, t, ...) of a part, its mask (B, t) and the initial states (l*D, B, H) of the first layers
            what these give for each step, tensors (B, t, ...), and the final states (l*D, B, H).
        inputs: (B, T, ...).
        valid: (B, T), or None.
        initial: (L*D, B, H) by name.

    Raises:
        UnsupportedError: a compiler or an exporter is at work, to which the parts would be a loop of a fixed length.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        raise UnsupportedError(
            "recompute: expected an eager call, got torch.compile or torch.export; set module.recompute = False"
        )
    sequence = _Parts(run, inputs, valid, initial)
    layers, found = len(next(iter(initial.values()))) // directions, []
    for depth in range(1, layers + 1) if directions == 2 else ():
        sequence.read(2 * depth, [2 * depth - 1], backward=True)
        if depth < layers:
            sequence.read(2 * depth, [2 * depth - 2])
    rows = layers * directions
    found = sequence.read(rows, range(rows) if directions == 1 else [rows - 2])
    return [torch.cat(each, dim=1) for each in zip(*found, strict=True)], sequence.final


class _Parts:
    """The parts of a sequence, the states (l*D) that each begins from, as far as they are known, and the final ones."""

    def __init__(self, run: Run, inputs: Tensor, valid: Tensor | None, initial: States) -> None:
        sizes = [part.stop - part.start for part in parts(inputs.shape[1])]
        self.run = run
        self.inputs = inputs.split(sizes, dim=1)
        self.masks = [None] * len(sizes) if valid is None else valid.split(sizes, dim=1)
        self.starts = [{name: list(states.unbind(0)) for name, states in initial.items()} for _ in [*sizes, None]]

    def read(self, rows: int, own: Iterable[int], *, backward: bool = False) -> list[tuple[Tensor, ...]]:
        """Run the layers of the first rows of states on each part, and hand its own rows to the part that is next."""
        found, order = [], range(len(self.inputs))
        for k in reversed(order) if backward else order:
            starts = {name: states[:rows] for name, states in self.starts[k].items()}
            given, final = checkpoint(
                self._part, self.inputs[k], self.masks[k], starts, use_reentrant=False, preserve_rng_state=False
            )
            found.append(given)
            for name, states in self.starts[k - 1 if backward else k + 1].items():  # the last entry is of final states
                for i in own:
                    states[i] = final[name][i]
        return found

    def _part(
        self, x: Tensor, mask: Tensor | None, starts: dict[str, list[Tensor]]
    ) -> tuple[tuple[Tensor, ...], States]:
        return self.run(x, mask, {name: torch.stack(states) for name, states in starts.items()})

    @property
    def final(self) -> States:
        """The final states of all layers and directions, (L*D, B, H) by name."""
        return {name: torch.stack(states) for name, states in self.starts[-1].items()}
