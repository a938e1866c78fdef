"""How gradients are had with less memory, by running parts of a sequence again (SPEC.md, 13.4)."""

from math import isqrt

from .encoder_decoder import AnySpec, networks
from .errors import SpecError, UnsupportedError, shown


def parts(steps: int) -> list[slice]:
    """So many steps in parts of about their square root, in order of time."""
    size = isqrt(steps - 1) + 1
    return [slice(begin, min(begin + size, steps)) for begin in range(0, steps, size)]


def checked_recompute(spec: AnySpec, recompute: bool) -> bool:
    """Whether a model recomputes. Raises SpecError, or UnsupportedError where it cannot be run part by part."""
    if not isinstance(recompute, bool):
        raise SpecError(f"recompute: expected True or False, got {shown(recompute)}")
    for network in networks(spec) if recompute else ():
        if network.dropout and network.dropout.between_layers:
            raise UnsupportedError(
                "recompute: expected no dropout between layers, which has a mask for each step of the whole sequence; "
                "leave recompute out, or drop inputs or state"
            )
    return recompute
