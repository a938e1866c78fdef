"""How gradients are had with less memory, by running parts of a sequence again (SPEC.md, 13.4)."""

from math import isqrt

from .encoder_decoder import AnySpec, networks
from .errors import UnsupportedError


def parts(steps: int) -> list[slice]:
    """So many steps in parts of about their square root, in order of time."""
    size = isqrt(steps - 1) + 1
    return [slice(begin, min(begin + size, steps)) for begin in range(0, steps, size)]


def check_recomputes(spec: AnySpec) -> None:
    """Raises UnsupportedError where a model cannot be run part by part."""
    for network in networks(spec):
        if network.dropout and network.dropout.between_layers:
            raise UnsupportedError(
                "recompute: expected no dropout between layers, which has a mask for each step of the whole sequence; "
                "leave recompute out, or drop inputs or state"
            )
