"""Layers under the canonical names, found in any file of named tensors (SPEC.md, 9)."""

import re
from collections.abc import Mapping
from dataclasses import replace

from .definitions import variant_of
from .errors import RnnZooError, WeightError, listed
from .found import FoundLayer, Hints, check_count
from .model import ModelSpec
from .parameters import parameters
from .parts import Part, check_parts
from .stored import StoredTensor

KIND = "rnnzoo"
NAME = re.compile(
    r"(?P<prefix>|.*\.)layers\.(?P<layer>\d{1,4})\.(?P<direction>forward|backward)\."
    r"(?P<part>input_weight|recurrent_weight|bias|input_bias|recurrent_bias)"
)


def canonical_layers(tensors: Mapping[str, StoredTensor], hints: Hints) -> tuple[list[FoundLayer], list[str]]:
    """The models whose tensors have canonical names, below any prefix; and the names of all other tensors.

    With a spec among the hints, that model alone, without a prefix.
    """
    if hints.spec:
        names = [parameter.name for parameter in parameters(hints.spec)]
        if not any(name in tensors for name in names if ".layers." in f".{name}"):  # others are torch's names too
            return [], list(tensors)
        parts = {name: Part(name, tensor) for name, tensor in tensors.items()}
        check_parts(hints.spec, parts)
        return [FoundLayer("", KIND, hints.spec, parts)], []
    groups: dict[str, dict[str, Part]] = {}
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            groups.setdefault(match["prefix"], {})[name.removeprefix(match["prefix"])] = Part(name, tensor)
    check_count(len(groups))
    layers = [_layer(prefix.removesuffix("."), parts, hints) for prefix, parts in groups.items()]
    own = {part.name for parts in groups.values() for part in parts.values()}
    return layers, [name for name in tensors if name not in own]


def _layer(path: str, parts: Mapping[str, Part], hints: Hints) -> FoundLayer:
    """What the names and shapes tell: all but the nonlinearity, and the merge where it keeps the size."""
    found = FoundLayer(path, KIND, parts=parts)
    layers = 1 + max(int(name.split(".")[1]) for name in parts)
    directions = 1 + any(".backward." in name for name in parts)
    bias = next((kind for kind, name in (("single", ".bias"), ("double", ".input_bias")) if _any(parts, name)), "none")
    try:
        if "layers.0.forward.input_weight" not in parts:
            raise WeightError(f"missing 'layers.0.forward.input_weight', got {listed(parts)}")
        H, I = parts["layers.0.forward.input_weight"].shape  # noqa: E741 (the spec's symbol)
        spec = ModelSpec(variant_of(layers, directions), I, H, layers, hints.nonlinearity or "tanh", bias)
        assumed = ("nonlinearity",) + (("merge",) if directions == 2 and layers == 1 else ())
        if directions == 2 and layers > 1 and parts["layers.1.forward.input_weight"].shape[1] == H:
            return replace(found, refusal="its merge may be sum, average or multiply; give the spec with --spec FILE")
        check_parts(spec, parts)
    except (KeyError, ValueError, RnnZooError) as error:
        return replace(found, refusal=f"its weights are no whole model: {error}; give the spec with --spec FILE")
    return replace(found, spec=spec, assumed=assumed)


def _any(parts: Mapping[str, Part], ending: str) -> bool:
    return any(name.endswith(ending) for name in parts)
