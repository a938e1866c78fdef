"""c += a @ weight where c stands: one call of SciPy's BLAS where that is installed and faster, else two of NumPy."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

Array = Any
SMALL = 10**6  # multiplications of a product up to which the weight's place and calls matter, as OpenBLAS packs nothing
LINE = 64  # bytes of a cache line


class Adding:
    """Adds products with a weight (M, H) to steps of at least so many rows."""

    def __init__(self, weight: Array, least: int) -> None:
        small = least * weight.size <= SMALL
        self.weight = _aligned(weight) if small else np.ascontiguousarray(weight)
        self._gemm = _scipy().get(weight.dtype.char) if small else None

    def to(self, steps: Array) -> tuple[Callable[[Array], Array], Callable[[Array, Array], Any]]:
        """For steps (k, n, H) to be added to: a view of steps, of which each is c or a of what adds to c."""
        weight, gemm, n = self.weight, self._gemm, steps.shape[1]
        in_place = steps[0].flags.c_contiguous and steps.dtype == weight.dtype  # else the sum would be in a copy of c
        if gemm is None or n * weight.size > SMALL or not in_place:
            room = np.empty((n, weight.shape[1]), steps.dtype)
            return lambda steps: steps, lambda c, a: np.add(c, a.dot(weight, room), c)
        columns = weight.T  # in the order of BLAS, as are the views
        return lambda steps: steps.transpose(0, 2, 1), lambda c, a: gemm(1.0, columns, a, 1.0, c, 0, 0, 1)


def _aligned(weight: Array) -> Array:
    """A copy that begins with a cache line: products with few rows take 0.6 to 0.9 of the time."""
    room = np.empty(weight.nbytes + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    found = room[start : start + weight.nbytes].view(weight.dtype).reshape(weight.shape)
    np.copyto(found, weight)
    return found


@cache
def _scipy() -> dict[str, Callable[..., Any]]:
    """SciPy's products by dtype, none without it; imported when a layer runs, as that takes as long as all else."""
    try:
        from scipy.linalg import blas
    except ImportError:
        return {}
    return {"f": blas.sgemm, "d": blas.dgemm}
