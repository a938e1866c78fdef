"""torch's standard layers at the seam: `nn.RNN`, `nn.RNNCell`, and a whole model of `embedding`, `rnn` and `head`.

Lengths are packed sequences, and nothing is repaired: what differs from the spec shows. A single bias is the input
bias, and the recurrent one stays 0.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..spec.backend import Array, Result
from ..spec.definitions import variant_of
from ..spec.errors import ConformanceError, InputError, UnsupportedError, listed
from ..spec.found import Original
from ..spec.inputs import Inputs, checked_cotangents, checked_inputs
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, check_dtype, checked_weights, initial_weights, weights_dtype
from .finding import NAME
from .naming import not_standard, plain_names
from .weights import dtype_name, model_dtype, to_array, to_tensor


class TorchLayers:
    """Modules of torch that anybody builds: `nn.RNN` with any options, `nn.RNNCell`, and those that `build` gives.

    Attributes:
        takes: no mask, as packed sequences have no holes.
        empty_rows: False, as none of them is empty.
        own_words: what `original` runs.
    """

    name = "torch.nn.RNN"
    own_words = "the file's own tensors under their own names"
    takes = ("lengths", "initial_state")
    empty_rows = False

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why standard layers cannot be the model."""
        return not_standard(spec)

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> nn.Module:
        """`nn.RNN`, or a ModuleDict where there is more, with the spec's initial values. Raises UnsupportedError."""
        if reason := self.supports(spec):
            raise UnsupportedError(reason)
        model = _empty(spec, check_dtype(dtype))
        self.from_spec(model, initial_weights(spec, seed, dtype))
        return model

    def loaded(self, path: Path, spec: ModelSpec, prefix: str = "") -> nn.Module:
        """The model whose state dict is in the file under that prefix, read by torch's own loader."""
        if path.suffix == ".safetensors":
            found = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
        own = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
        model = _empty(spec, dtype_name(next(iter(own.values())).dtype))
        model.load_state_dict(own)
        return model

    def owns(self, model: object) -> bool:
        """Whether it is a module of torch."""
        return isinstance(model, nn.Module)

    def original(self, layer: Original, spec: ModelSpec, weights: Weights) -> nn.Module:
        """The file's own tensors in the layer that their names tell, of the dtype of the weights that were read.

        Raises:
            ConformanceError: they do not load, or the layer is not what was read.
        """
        tensors = {name: to_tensor(stored.array()) for name, stored in layer.tensors.items()}
        model = _named(tensors, layer.told["nonlinearity"], weights_dtype(weights))
        try:
            model.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise ConformanceError(f"the source does not load into {type(model).__name__}: {error}") from error
        if fields := [name for name in self.spec_of(model).differing(spec) if name != "dropout"]:
            raise ConformanceError(f"the source is of another {', '.join(fields)} than what was read")
        return model

    def spec_of(self, model: nn.Module) -> ModelSpec:
        """What the model is. Raises UnsupportedError where it is anything but recurrent layers of the cell `rnn`."""
        known = getattr(model, "spec", None)
        return known if isinstance(known, ModelSpec) else _spec(model)

    def to_spec(self, model: nn.Module) -> Weights:
        """A copy of the weights under their canonical names. Raises WeightError as `model_dtype` does."""
        model_dtype(model)
        return {name: to_array(parameter) for name, parameter in self.parameters(model).items()}

    def from_spec(self, model: nn.Module, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError."""
        checked = checked_weights(self.spec_of(model), weights, model_dtype(model), cast=cast)
        own = self.parameters(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            for name, array in checked.items():
                own[name].copy_(to_tensor(array))

    def run(
        self,
        model: nn.Module,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Result:
        """Inference, without dropout; the model's mode is left as it is. Raises InputError or UnsupportedError."""
        spec = self.spec_of(model)
        given = checked_inputs(
            spec, model_dtype(model), inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        with torch.no_grad(), _without_dropout(model):
            outputs, final, scores = _run(model, spec, *_tensors(model, spec, given), given.mask)
        return Result(to_array(outputs), {"h": to_array(final)}, None if scores is None else to_array(scores))

    def gradients(
        self,
        model: nn.Module,
        inputs: ArrayLike,
        outputs_cotangent: ArrayLike | None = None,
        final_state_cotangent: ArrayLike | Mapping[str, ArrayLike] | None = None,
        scores_cotangent: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> dict[str, Array]:
        """Gradients of everything, by autograd, of a copy of the model. Raises InputError or UnsupportedError."""
        spec, dtype, model = self.spec_of(model), model_dtype(model), copy.deepcopy(model).requires_grad_()
        given = checked_inputs(
            spec, dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        cotangents = checked_cotangents(
            spec, dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        x, state = _tensors(model, spec, given)
        leaves = {**self.parameters(model), **({} if spec.embedding else {"inputs": x}), "initial_state": state}
        with torch.enable_grad(), _without_dropout(model):
            for leaf in leaves.values():
                leaf.requires_grad_()
            found = _run(model, spec, x, state, given.mask)
        arrays = (cotangents.outputs, (cotangents.final_states or {}).get("h"), cotangents.scores)
        pairs = [(value, d) for value, d in zip(found, arrays, strict=True) if value is not None]
        weights = [torch.zeros_like(value) if d is None else to_tensor(d, value.device) for value, d in pairs]
        slopes = torch.autograd.grad(
            [value for value, _ in pairs], list(leaves.values()), weights, allow_unused=True, materialize_grads=True
        )
        return {name: to_array(slope) for name, slope in zip(leaves, slopes, strict=True)}

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters by canonical name; of two biases the first where the spec has one."""
        cell = isinstance(model, nn.RNNCell)
        names = plain_names(self.spec_of(model)).items()
        own = {name: other.replace("bias_l", "bias_ih_l").removesuffix("_l0" if cell else "") for name, other in names}
        return {name: model.get_parameter(other) for name, other in own.items()}


def _empty(spec: ModelSpec, dtype: str) -> nn.Module:
    """The modules with their parameters unset, so that no generator is used."""
    options = {"dtype": getattr(torch, dtype), "device": "meta"}
    parts: dict[str, nn.Module] = {"rnn": nn.RNN(
        spec.input_size, spec.hidden_size, spec.num_layers, nonlinearity=spec.nonlinearity, bias=spec.bias != "none",
        batch_first=True, bidirectional=spec.num_directions == 2, **options,
    )}  # fmt: skip
    if spec.embedding:
        parts["embedding"] = nn.Embedding(spec.embedding.vocabulary_size, spec.input_size, **options)
    if spec.head:
        parts["head"] = nn.Linear(spec.output_size, spec.head.size, bias=spec.head.bias, **options)
    model: Any = parts["rnn"] if spec.is_core else nn.ModuleDict(parts)
    model.to_empty(device="cpu").spec = spec
    return model


def _named(tensors: Mapping[str, Tensor], nonlinearity: str, dtype: str) -> nn.Module:
    """The layer that has parameters of these names, unset."""
    ending = "_l0" if "weight_ih_l0" in tensors else ""
    H, I = tensors[f"weight_ih{ending}"].shape  # noqa: E741 (the symbol)
    options: dict[str, Any] = {"bias": any(name.startswith("bias") for name in tensors), "nonlinearity": nonlinearity}
    options |= {"dtype": getattr(torch, dtype), "device": "meta"}
    if not ending:
        return nn.RNNCell(I, H, **options).to_empty(device="cpu")
    forward = [name for name in tensors if name.startswith("weight_ih") and not name.endswith("_reverse")]
    both = any(name.endswith("_reverse") for name in tensors)
    return nn.RNN(I, H, len(forward), bidirectional=both, **options).to_empty(device="cpu")


def _spec(model: nn.Module) -> ModelSpec:
    kind = type(model).__name__
    if not isinstance(model, nn.RNN | nn.RNNCell):
        inside = [name for name, module in model.named_modules() if isinstance(module, nn.RNN | nn.RNNCell)]
        way_out = f"give one of its layers: {listed(inside)}" if inside else "torch.nn.RNN and RNNCell are known"
        raise UnsupportedError(f"{kind}: the spec has no layer of this kind; {way_out}")
    _check_code(model)
    layers, directions = getattr(model, "num_layers", 1), 1 + getattr(model, "bidirectional", False)
    bias = "double" if model.bias else "none"
    variant = variant_of(layers, directions)
    return ModelSpec(variant, model.input_size, model.hidden_size, layers, model.nonlinearity, bias)


def _check_code(model: nn.RNN | nn.RNNCell) -> None:
    """Raises UnsupportedError where more than its weights and options says what a layer computes."""
    kind, base = type(model).__name__, nn.RNN if isinstance(model, nn.RNN) else nn.RNNCell
    way_out = f"put its weights into a torch.nn.{base.__name__}, and give that"
    names = [name for name, _ in model.named_parameters()]
    if computed := [name for name in names if (match := NAME.fullmatch(name)) and match["computed"]]:
        raise UnsupportedError(
            f"{kind}: computes a weight from others ({listed(computed)}); remove its weight norm, parametrization or "
            "pruning first (torch.nn.utils.parametrize.remove_parametrizations)"
        )
    if type(model).forward is not base.forward or "forward" in vars(model):
        raise UnsupportedError(f"{kind}: has a forward of its own, whose code alone says what it does; {way_out}")
    if model._forward_hooks or model._forward_pre_hooks:
        raise UnsupportedError(f"{kind}: has hooks, which can change what it gives; remove them, or {way_out}")


def _tensors(model: nn.Module, spec: ModelSpec, given: Inputs) -> tuple[Tensor, Tensor]:
    """Inputs and initial state, on the model's device; 0 stands for tokens in the padding."""
    inputs = given.inputs if given.mask is None or not spec.embedding else np.where(given.mask, given.inputs, 0)
    zeros = np.zeros(spec.state_shape(len(inputs)), model_dtype(model))
    device = next(model.parameters()).device
    return to_tensor(inputs, device), to_tensor((given.initial_states or {"h": zeros})["h"], device)


def _run(
    model: nn.Module, spec: ModelSpec, inputs: Tensor, state: Tensor, mask: Array | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs (B, T, F), final state (L*D, B, H) and scores (B, T, O) or (B, O)."""
    if isinstance(model, nn.RNNCell):
        return *_steps(model, inputs, state[0], mask), None
    parts: Any = model if isinstance(model, nn.ModuleDict) else {"rnn": model}
    outputs, final = _layers(parts["rnn"], parts["embedding"](inputs) if spec.embedding else inputs, state, mask)
    if spec.head is None:
        return outputs, final, None
    if spec.head.reads == "final":
        return outputs, final, parts["head"](final[-spec.num_directions :].transpose(0, 1).flatten(1))
    scores = parts["head"](outputs)
    if mask is not None:
        scores = torch.where(to_tensor(mask, scores.device)[:, :, None], scores, 0.0)
    return outputs, final, scores


def _layers(rnn: nn.RNN, x: Tensor, state: Tensor, mask: Array | None) -> tuple[Tensor, Tensor]:
    if mask is not None:
        packed, final = rnn(pack_padded_sequence(x, _lengths(mask), batch_first=True, enforce_sorted=False), state)
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0], final
    outputs, final = rnn(x if rnn.batch_first else x.transpose(0, 1), state)
    return outputs if rnn.batch_first else outputs.transpose(0, 1), final


def _steps(cell: nn.RNNCell, x: Tensor, h: Tensor, mask: Array | None) -> tuple[Tensor, Tensor]:
    """A cell called at every valid step."""
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else to_tensor(mask, x.device)
    outputs = []
    for t in range(x.shape[1]):
        now = valid[:, t, None]
        h = torch.where(now, cell(torch.where(now, x[:, t], 0.0), h), h)
        outputs.append(torch.where(now, h, 0.0))
    return torch.stack(outputs, 1), h[None]


def _lengths(mask: Array) -> Tensor:
    """The lengths of packed sequences. Raises InputError or UnsupportedError where there are none such."""
    lengths = mask.sum(axis=1)
    if not np.array_equal(mask, np.arange(mask.shape[1]) < lengths[:, None]):
        raise UnsupportedError("mask: torch.nn.RNN takes packed sequences, which have no holes; pass lengths")
    if lengths.min() < 1:
        raise InputError(f"lengths: torch.nn.RNN packs only lengths greater than 0, got {lengths.min()}")
    return torch.tensor(lengths)


@contextlib.contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    rates = [layer.dropout for layer in layers]
    try:
        for layer in layers:
            layer.dropout = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.dropout = rate


BACKEND = TorchLayers()
