"""Files of other cells' weights, refused by name rather than for a weight that is missing."""

import re
from collections.abc import Mapping
from pathlib import Path

from .errors import UnsupportedError
from .model import ModelSpec

GATES = {4: "LSTM", 3: "GRU"}  # blocks of H rows in a recurrent weight
RECURRENT = re.compile(r"(^|\.)weight_hh(_l\d+)?(_reverse)?$")  # in the state dict of torch's modules and cells


def refuse_other_cells(path: Path, shapes: Mapping[str, tuple[int, ...]], spec: ModelSpec | None) -> None:
    """Refuse a file whose weights have the names and shapes of `torch.nn.LSTM` or `torch.nn.GRU`.

    An LSTM with projections has (4H, P) instead of (4H, H), and a weight_hr besides. A spec whose cell has as
    many gates is taken at its word.

    Args:
        shapes: of the file's weights, under the names that it gives them.

    Raises:
        UnsupportedError: the weights of an LSTM or a GRU.
    """
    for name, shape in shapes.items():
        if not RECURRENT.search(str(name)) or len(shape) != 2:
            continue
        gates = 4 if str(name).replace("weight_hh", "weight_hr") in shapes else shape[0] / max(shape[1], 1)
        if gates in GATES and (spec is None or len(spec.cell_definition.gates) != gates):
            raise UnsupportedError(
                f"{path}: {name} of shape {tuple(shape)} belongs to {GATES[int(gates)]} weights; "
                "expected a simple recurrent network (torch.nn.RNN), whose recurrent weights are square"
            )
