"""How gradients are had with less memory, by running parts of a sequence again (SPEC.md, 13.4)."""

from math import isqrt

from .encoder_decoder import AnySpec, networks
from .errors import UnsupportedError


def parts(steps: int) -> list[slice]:
    """So many steps in parts of about their square root, in order of time."""
    size = isqrt(steps - 1) + 1
    return [slice(begin, min(begin + size, steps)) for begin in range(0, steps, size)]


def check_recomputes(spec: AnySpec, *, both_directions: bool = False) -> None:
    """Raises UnsupportedError where a model cannot be run part by part, or a backend cannot in both directions."""
    for network in networks(spec):
        if network.num_directions == 2 and not both_directions:
            raise UnsupportedError(
                f"recompute: expected a model that reads forward alone, got {network.variant}, whose backward "
                "direction begins at the end of the sequence; leave recompute out"
            )
        if network.dropout and network.dropout.between_layers:
            raise UnsupportedError(
                "recompute: expected no dropout between layers, which has a mask for each step of the whole sequence; "
                "leave recompute out, or drop inputs or state"
            )
