"""Layers found by torch's names in any file of named tensors."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..spec.definitions import variant_of
from ..spec.encoder_decoder import AnySpec, networks
from ..spec.errors import RnnZooError, UnsupportedError, WeightError, listed
from ..spec.found import FoundLayer, Hints, Original, check_count
from ..spec.model import ModelSpec
from ..spec.naming import KIND
from ..spec.parts import Part, check_parts
from ..spec.stored import WIDENED, StoredTensor
from .naming import not_standard, plain_names, state_dict_names
from .records import Module

FIRST = "weight_ih_l0"
LAST = "\U0010ffff"  # no name goes on with it
SURPLUS = 1000  # tensors beside a model whose names are told
WRAPPERS = ("module", "_orig_mod")  # of DataParallel, and of torch.compile
GATES: Mapping[float, str] = {1: "RNN", 3: "GRU", 4: "LSTM"}  # blocks of H rows in a recurrent weight
NAME = re.compile(
    r"(?P<prefix>|.*\.)"
    r"(?P<own>(?:(?:weight|bias)_(?:ih|hh)|weight_hr)(?:_l\d{1,4}(?:_reverse)?|)|bias_l\d{1,4}(?:_reverse)?)"
    r"(?P<computed>_(?:g|v|u|orig|mask)|\.(?:original\d*|\d+\..*)|)"
)
PACKED = re.compile(r"(?P<prefix>|.*\.)_all_weight_values\.\d+\.param")  # of quantized layers


def layers_in(
    tensors: Mapping[str, StoredTensor], hints: Hints, modules: Mapping[str, Module] | None = None
) -> tuple[list[FoundLayer], list[str]]:
    """The layers whose tensors have torch's names, below any prefix; and the names of all other tensors.

    With a spec among the hints, models of that spec alone.

    Args:
        modules: that the file has whole, by prefix.

    Raises:
        WeightError: a model of the spec has other names or shapes.
        UnsupportedError: it is an LSTM or a GRU.
    """
    groups = _groups(tensors)
    check_count(len(groups))
    layers = _models(tensors, groups, hints.spec) if hints.spec else [
        _layer(group, hints.nonlinearity, (modules or {}).get(group.prefix.removesuffix("."))) for group in groups
    ]  # fmt: skip
    taken = {part.name for layer in layers for part in layer.parts.values()}
    if not hints.spec:
        taken |= {name for group in groups for name in group.all_names}
    return _with_paths(layers), [name for name in tensors if name not in taken]


@dataclass
class Group:
    """Tensors under one prefix that have names of a recurrent layer.

    Attributes:
        tensors: by their names without the prefix.
        computed: those from which a weight is computed, by their names in the file.
    """

    prefix: str
    tensors: dict[str, Part]
    computed: dict[str, Part]

    @property
    def all_names(self) -> list[str]:
        return [part.name for part in self.all.values()]

    @property
    def all(self) -> dict[str, Part]:
        """Every tensor."""
        return {**self.tensors, **self.computed}

    @property
    def ending(self) -> str:
        """`_l0` for layers, nothing for a cell."""
        return "_l0" if any("_l" in name for name in self.tensors) else ""

    @property
    def gates(self) -> float:
        """Blocks of rows in the recurrent weight; an LSTM with projections has fewer columns."""
        if f"weight_hr{self.ending}" in self.tensors:
            return 4
        rows, columns = self.tensors[f"weight_hh{self.ending}"].shape
        return rows / columns

    @property
    def kind(self) -> str:
        """Of torch: `torch.nn.RNN`, `torch.nn.LSTMCell`; `torch.nn.RNNBase` where the recurrent weight is not there."""
        try:
            name = GATES.get(self.gates, "RNN")
        except (KeyError, ValueError, ZeroDivisionError):
            return "torch.nn.RNNBase"
        return f"torch.nn.{name}{'' if self.ending else 'Cell'}"


def _groups(tensors: Mapping[str, StoredTensor]) -> list[Group]:
    found: dict[str, Group] = {}
    for name, tensor in tensors.items():
        if not (match := NAME.fullmatch(name) or PACKED.fullmatch(name)):
            continue
        prefix = match["prefix"].removesuffix("parametrizations.")
        group = found.setdefault(prefix, Group(prefix, {}, {}))
        if match.re is PACKED or match["computed"]:
            group.computed[name] = Part(name, tensor)
        else:
            group.tensors[match["own"]] = Part(name, tensor)
    return list(found.values())


def _layer(group: Group, nonlinearity: str | None, module: Module | None) -> FoundLayer:
    """What the names and shapes tell: all but the nonlinearity."""
    told = module and module.nonlinearity
    found = FoundLayer(group.prefix, group.kind, parts=group.all, notes=_notes(group, module))
    if reason := _refusal(group):
        return replace(found, refusal=reason)
    try:
        spec = _spec(group, told or nonlinearity or "tanh")
        parts = _parts(spec, group)
        check_parts(spec, parts)
    except (KeyError, ValueError, RnnZooError) as error:
        return replace(found, refusal=f"its tensors are no whole {group.kind}: {error}; save the whole module again")
    single = spec.bias == "single"
    assumed = {"nonlinearity": not told, "merge": single and spec.variant == "bi_rnn"}
    return replace(
        found, kind=KIND if single else found.kind, spec=spec, parts=parts,
        assumed=tuple(name for name, is_assumed in assumed.items() if is_assumed),
        original=None if single else _original(group.tensors, spec),
    )  # fmt: skip


def _notes(group: Group, module: Module | None) -> tuple[str, ...]:
    if module is None or module.kind.startswith("torch.nn."):
        return ()
    return (
        f"its class is {module.kind}, whose code is not in the file: it is taken to compute what {group.kind} computes",
    )


def _original(tensors: Mapping[str, Part], spec: ModelSpec) -> Original:
    """What torch's own layer is to load; its options are in the names, but for the nonlinearity."""
    return Original({name: part.tensor for name, part in tensors.items()}, {"nonlinearity": spec.nonlinearity})


def _refusal(group: Group) -> str | None:
    if group.computed and not group.tensors and PACKED.fullmatch(next(iter(group.computed))):
        return "it is quantized, and keeps its weights packed; convert the model from before it was quantized"
    if group.computed:
        return (
            f"a weight of it is computed from others ({listed(list(group.computed)[:2])}); remove its weight norm, "
            "parametrization or pruning (torch.nn.utils.parametrize.remove_parametrizations), and save again"
        )
    if group.kind.startswith(("torch.nn.LSTM", "torch.nn.GRU")):
        return f"the spec has no cell of this kind yet, and {group.kind} is not converted; torch.nn.RNN is"
    dtypes = {part.tensor.dtype for part in group.tensors.values()}
    if other := sorted(dtypes - set(WIDENED)):
        return f"it has tensors that are {listed(other)}; expected dense {', '.join(WIDENED)}: convert and save again"
    if len(dtypes) > 1:
        return f"it has tensors of {' and '.join(sorted(dtypes))}; expected one dtype: module.float(), and save again"
    return None


def _spec(group: Group, nonlinearity: str) -> ModelSpec:
    """The spec that the names and shapes tell. Raises KeyError, ValueError or SpecError."""
    if (first := f"weight_ih{group.ending}") not in group.tensors:
        raise WeightError(f"missing {first!r}, where its input size is; it has {listed(group.tensors)}")
    ends = {name.partition("_l")[2] for name in group.tensors if "_l" in name}
    layers = len({end.removesuffix("_reverse") for end in ends}) or 1
    biases = {name.partition("_l")[0] for name in group.tensors} - {"weight_ih", "weight_hh", "weight_hr"}
    rows, columns = group.tensors[first].shape
    variant = variant_of(layers, 1 + any(end.endswith("_reverse") for end in ends))
    bias = "none" if not biases else "single" if biases == {"bias"} else "double"
    return ModelSpec(variant, columns, rows, layers, nonlinearity, bias)


def _parts(spec: ModelSpec, group: Group) -> dict[str, Part]:
    """The group's tensors by canonical name. Raises WeightError."""
    names = plain_names(spec)
    own = names if group.ending else {name: other.removesuffix("_l0") for name, other in names.items()}
    missing, surplus = set(own.values()) - set(group.tensors), set(group.tensors) - set(own.values())
    if missing or surplus:
        raise WeightError(f"missing {listed(missing)}; surplus {listed(surplus)}")
    return {name: group.tensors[other] for name, other in own.items()}


def _models(tensors: Mapping[str, StoredTensor], groups: list[Group], spec: AnySpec) -> list[FoundLayer]:
    """The models of that spec, in the own layout or in that of standard layers.

    Raises:
        WeightError, UnsupportedError: there is none, and one has other names, shapes or gates.
    """
    found: dict[str, FoundLayer] = {}
    errors, own = [], sorted(tensors)
    for names in (state_dict_names(spec), plain_names(spec)):
        core = next(iter(own for own in names.values() if own.endswith(FIRST))).removesuffix(FIRST)
        for group in (group for group in groups if group.prefix.endswith(core)):
            prefix = group.prefix.removesuffix(core)
            if prefix in found:
                continue  # both layouts are one where there is a core alone
            below = own[bisect_left(own, prefix) : bisect_left(own, prefix + LAST)]
            try:
                _check_cell(group, spec)
                if len(below) > len(names) + SURPLUS:  # to look at all of them below each of many prefixes takes long
                    raise WeightError(f"{len(below):,} tensors below {prefix!r}, expected {len(names):,}")
                there = {name.removeprefix(prefix): tensors[name] for name in below}
                found[prefix] = _model(there, names, prefix, spec)
            except (WeightError, UnsupportedError) as error:
                errors.append(error)
    if errors and not found:
        raise errors[0]
    return list(found.values())


def _check_cell(group: Group, spec: AnySpec) -> None:
    """Raises UnsupportedError for another cell; a spec whose cell has as many gates is taken at its word."""
    name = group.kind.removeprefix("torch.nn.")
    if name.startswith(("LSTM", "GRU")) and len(networks(spec)[0].cell_definition.gates) != group.gates:
        shapes = {own: part.shape for own, part in group.tensors.items() if own.startswith("weight_hh")}
        raise UnsupportedError(
            f"{group.prefix}{min(shapes)} of shape {min(shapes.values())} belongs to {name} weights; "
            "expected a simple recurrent network (torch.nn.RNN), whose recurrent weights are square"
        )


def _model(tensors: Mapping[str, StoredTensor], names: Mapping[str, str], prefix: str, spec: AnySpec) -> FoundLayer:
    """The model of these tensors, whose names are without the prefix. Raises WeightError."""
    missing, surplus = set(names.values()) - set(tensors), set(tensors) - set(names.values())
    if missing or surplus:
        raise WeightError(f"state dict of a {spec.title}: missing {listed(missing)}; surplus {listed(surplus)}")
    parts = {canonical: Part(prefix + own, tensors[own]) for canonical, own in names.items()}
    check_parts(spec, parts)
    if isinstance(spec, ModelSpec) and spec.is_core and spec.bias != "single" and not not_standard(spec):
        own = {name: Part(prefix + name, tensor) for name, tensor in tensors.items()}
        return FoundLayer(prefix, f"torch.nn.{GATES[1]}", spec, parts, original=_original(own, spec))
    return FoundLayer(prefix, KIND, spec, parts)


def _with_paths(layers: list[FoundLayer]) -> list[FoundLayer]:
    """The layers with paths to show: without wrappers, unless two would have one name then."""
    shown = [".".join(part for part in layer.path.split(".") if part and part not in WRAPPERS) for layer in layers]
    counts = Counter(shown)
    return [
        replace(layer, path=path if counts[path] == 1 else layer.path.removesuffix("."))
        for layer, path in zip(layers, shown, strict=True)
    ]
