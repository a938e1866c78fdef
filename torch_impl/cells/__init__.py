"""One file a cell: `step`, its derivative `step_gradient`, and what the loop over time has to keep for it.

A cell module has

    step(p, q, states, f) -> states
        p, q: (B, G*H), the projections of the input and of the output state; states by name, (B, H).
        The new states are new tensors: never p, q, an old state, or each other.
    step_gradient(p, q, states, new_states, d_new_states, f) -> d_p, d_q, d_states
        d_states without what flows through q; 0.0 for the output state where that is all there is.
        These may be each other, or one of d_new_states unchanged: nothing is written into them.
    KEEPS_PROJECTIONS: step_gradient reads p and q (else they are None).
    ADDITIVE: the step reads p + q alone, so that d_p is d_q.
    IN_PLACE: the step is h' = f(p + q), so that the loop of `fast.py` may stand for it.
"""

import importlib
from types import ModuleType

from ...spec.errors import UnsupportedError


def load_cell(name: str) -> ModuleType:
    """The cell's module. Raises UnsupportedError when this backend has no such file."""
    module = f"{__package__}.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UnsupportedError(f"cell {name!r}: the torch backend has no file cells/{name}.py") from error
