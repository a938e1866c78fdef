"""Recurrent cells by the names that Keras and TensorFlow give their weights.

Two kinds of names are in use: the paths of Keras 3, `layers/bidirectional/forward_layer/cell/vars/0`, in which the
numbers are kernel, recurrent kernel and bias; and names of variables, `bidirectional/forward_rnn/rnn_cell/kernel`, with
`:0` behind them or not. TensorFlow 1 has one kernel (I + H, H), whose first I rows belong to the inputs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..spec.model import ModelSpec
from ..spec.parts import Part
from ..spec.stored import StoredTensor
from .configuration import Record

LEAVES = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}
VARIABLES = re.compile(r"(kernel|recurrent_kernel|bias)(:0)?")
CELL = re.compile(r"(.*_)?cell(_\d+)?")
STACK = re.compile(r"cells?|cell_\d+|(stacked_rnn_cells|multi_rnn_cell)(_\d+)?")
ONE_KERNEL = re.compile(r"(.*/)?(basic_rnn|basic_lstm|lstm|gru)_cell(_\d+)?(/gates|/candidate)?")
BASIC = "BasicRNNCell"  # of TensorFlow 1
GATES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
SIDES = {"forward": ("forward_", "fw"), "backward": ("backward_", "bw")}


class NamedCell(NamedTuple):
    """The weights of a cell.

    Attributes:
        kind: `SimpleRNN`, `BasicRNNCell`, `LSTM`, `GRU`, or `unknown`.
        parts: by the last part of their canonical names.
    """

    kind: str
    parts: Mapping[str, Part]


def cells(tensors: Mapping[str, StoredTensor]) -> dict[str, NamedCell]:
    """Every recurrent cell by its path, in the order of the tensors."""
    groups: dict[str, dict[str, str]] = {}
    numbered = set()
    for name in tensors:
        *path, leaf = name.split("/" if "/" in name else ".")
        if path[-1:] == ["vars"] and leaf in LEAVES:
            numbered.add("/".join(path[:-1]))
            groups.setdefault("/".join(path[:-1]), {})[LEAVES[leaf]] = name
        elif match := VARIABLES.fullmatch(leaf):
            groups.setdefault("/".join(path), {})[match[1]] = name
    found = {}
    for place, names in groups.items():
        parts = place.split("/")
        is_cell = place not in numbered or CELL.fullmatch(parts[-1]) or parts[-2:-1] == ["cells"]
        if is_cell and (cell := _cell(place, {leaf: Part(name, tensors[name]) for leaf, name in names.items()})):
            found[place] = cell
    return found


def _cell(path: str, leaves: Mapping[str, Part]) -> NamedCell | None:
    kernel, recurrent = leaves.get("kernel"), leaves.get("recurrent_kernel")
    bias = {"bias": leaves["bias"]} if "bias" in leaves else {}
    if kernel is None:
        return None
    if recurrent is None:
        match = ONE_KERNEL.fullmatch(path)
        return _split(match[2], kernel, bias) if match and len(kernel.shape) == 2 else None
    kind, (H, columns) = "unknown", recurrent.shape if len(recurrent.shape) == 2 else (0, 0)
    if H and len(kernel.shape) == 2 and kernel.shape[1] == columns and columns % H == 0:
        kind = GATES.get(columns // H, kind)
    parts = {"input_weight": replace(kernel, transposed=True), "recurrent_weight": replace(recurrent, transposed=True)}
    return NamedCell(kind, parts | bias)


def _split(name: str, kernel: Part, bias: dict[str, Part]) -> NamedCell:
    rows, H = kernel.shape
    if name != "basic_rnn":
        return NamedCell("GRU" if name == "gru" else "LSTM", {"input_weight": kernel, **bias})
    I = rows - H  # noqa: E741 (the spec's symbol)
    if I < 1:
        return NamedCell("unknown", {"input_weight": kernel, **bias})
    parts = {
        "input_weight": Part(kernel.name, kernel.tensor, (slice(None, I),), transposed=True),
        "recurrent_weight": Part(kernel.name, kernel.tensor, (slice(I, None),), transposed=True),
    }
    return NamedCell(BASIC, parts | bias)


def layer_of(path: str) -> tuple[str, str]:
    """The path of the layer that a cell belongs to, and the direction: `forward`, `backward`, or "" of the only one."""
    parts = path.split("/")
    if len(parts) > 1 and CELL.fullmatch(parts[-1]):
        parts.pop()
    while len(parts) > 1 and STACK.fullmatch(parts[-1]):
        parts.pop()
    for side, (start, short) in SIDES.items():
        if parts[-1].startswith(start) or parts[-1] == short:
            return "/".join(parts[:-1]), side
    return "/".join(parts), ""


def spoken(path: str, names: Mapping[str, str]) -> str:
    """What to call the layer of that path: the names that the file tells, without the words of the format."""
    parts = path.split("/")
    told = [names.get("/".join(parts[: number + 1]), part) for number, part in enumerate(parts)]
    words = [word for word in told if word not in ("layers", "_layer_checkpoint_dependencies", "model_weights")]
    return ".".join(words[1:] if words and words[0] in words[1:] else words)


def located(found: Mapping[str, NamedCell], records: Iterable[Record]) -> dict[str, NamedCell]:
    """The cells by the paths of the configuration, where they stand under paths of names."""
    left = {path: set(path.split("/")) for path in found}
    places = {}
    for cell in (cell for record in records for cell in record.cells if cell.path not in found):
        outer, *inner = cell.names
        fitting = [path for path, parts in left.items() if parts & set(outer)]
        for names in inner:
            fitting = [path for path in fitting if left[path] & set(names)] or fitting
        if fitting:
            places[fitting[0]] = cell.path
            del left[fitting[0]]
    return {places.get(path, path): cell for path, cell in found.items()}


def in_order(paths: Iterable[str]) -> list[str]:
    """Paths in the order of their counters where those are all that differs, else as they come."""
    number = {path: index for index, path in enumerate(paths)}
    first: dict[str, int] = {}
    for path, index in number.items():
        first.setdefault(re.sub(r"_?\d+", "", path), index)
    return sorted(number, key=lambda path: (first[re.sub(r"_?\d+", "", path)], *map(int, re.findall(r"\d+", path))))


def plain_place(spec: ModelSpec, name: str) -> tuple[str, bool]:
    """Where a weight stands in a file of Keras' standard layers, and whether it is transposed there."""
    kind = name.rpartition(".")[2]
    if name.startswith(("embedding.", "head.")):
        row = {"embedding.weight": "embedding/vars/0", "head.weight": "dense/vars/0", "head.bias": "dense/vars/1"}[name]
        return f"layers/{row}", name == "head.weight"
    _, layer, direction, _ = name.split(".")
    wrapped = spec.num_directions == 2
    path = f"layers/{'bidirectional' if wrapped else 'simple_rnn'}{f'_{layer}' if layer != '0' else ''}"
    number = {"input_weight": 0, "recurrent_weight": 1, "bias": 2}[kind]
    return f"{path}{f'/{direction}_layer' if wrapped else ''}/cell/vars/{number}", number < 2
