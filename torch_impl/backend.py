"""The PyTorch backend at the seam of `rnnzoo.spec.backend`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..spec.backend import Result
from ..spec.encoder_decoder import AnySpec, Source, networks
from ..spec.errors import UnsupportedError
from ..spec.inputs import Cotangents, Inputs, checked_cotangents, checked_inputs, state_gradients
from ..spec.parameters import Weights, check_dtype
from ..spec.training import TrainingSpec
from . import weights as weight_table
from .cells import load_cell
from .cudnn import without_tf32
from .encoder_decoder import Model, arguments, build, named_result
from .files import FILES
from .training import Trainer
from .weights import model_dtype, names_of, to_array, to_tensor


class TorchBackend:
    """Modules of torch, on whichever device they are; NumPy arrays at the seam."""

    name = "torch"
    files = FILES
    encoder_decoders = True
    recomputes = True

    def supports(self, spec: AnySpec) -> str | None:
        """None, or why the model cannot be built."""
        try:
            for network in networks(spec):
                load_cell(network.cell)
        except UnsupportedError as error:
            return str(error)
        return None

    def build(self, spec: AnySpec, seed: int = 0, dtype: str = "float32", *, recompute: bool = False) -> Model:
        """The model with the spec's initial values. Raises UnsupportedError or WeightError."""
        if reason := self.supports(spec):
            raise UnsupportedError(reason)
        return build(spec, seed, check_dtype(dtype), recompute=recompute)

    def run(
        self,
        model: Model,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | Source | None = None,
    ) -> Result:
        """Inference; the model's mode (train or eval) is left as it is. Raises InputError."""
        given = checked_inputs(
            model.spec, model_dtype(model), inputs,
            lengths=lengths, mask=mask, initial_state=initial_state, context=context,
        )  # fmt: skip
        with torch.inference_mode(), without_tf32(next(model.parameters()).device):
            outputs, final, scores = named_result(model, model(**arguments(model, given), dropout=False))
        arrays = {name: to_array(state) for name, state in final.items()}
        return Result(to_array(outputs), arrays, None if scores is None else to_array(scores))

    def gradients(
        self,
        model: Model,
        inputs: ArrayLike,
        outputs_cotangent: ArrayLike | None = None,
        final_state_cotangent: ArrayLike | Mapping[str, ArrayLike] | None = None,
        scores_cotangent: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | Source | None = None,
    ) -> dict[str, Any]:
        """Gradients of everything for the given cotangents; `.grad` and `requires_grad` stay. Raises InputError."""
        dtype = model_dtype(model)
        given = checked_inputs(
            model.spec, dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        cotangents = checked_cotangents(
            model.spec, dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        device = next(model.parameters()).device
        with torch.inference_mode(False), torch.enable_grad(), without_tf32(device):
            found = _gradients(model, given, cotangents)
        return {name: to_array(gradient) for name, gradient in found.items()}

    def to_spec(self, model: Model) -> Weights:
        """A copy of the weights under their canonical names."""
        return weight_table.to_spec(model)

    def from_spec(self, model: Model, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError."""
        weight_table.from_spec(model, weights, cast=cast)

    def trainer(self, model: Model, training: TrainingSpec) -> Trainer:
        """A trainer that updates the model in place."""
        return Trainer(model, training)


def _gradients(model: Model, given: Inputs, cotangents: Cotangents) -> dict[str, Tensor]:
    weights = {name: p.detach().clone().requires_grad_() for name, p in weight_table.named_parameters(model).items()}
    named = arguments(model, given) | {"dropout": False}
    leaves = {**weights, **_argument_leaves(model, given, named)}
    own = {names_of(model)[name]: weight for name, weight in weights.items()}
    outputs, final, scores = named_result(model, torch.func.functional_call(model, own, kwargs=named))
    pairs = _paired(outputs, final, scores, cotangents)
    if not pairs:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(
        [value for value, _ in pairs], list(leaves.values()), [d for _, d in pairs],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return dict(zip(leaves, found, strict=True))


def _argument_leaves(model: Model, given: Inputs, named: dict[str, Any]) -> dict[str, Tensor]:
    """What besides the weights gets a gradient, under the names of the seam; zeros stand for no initial state."""
    leaves = {} if model.spec.embedding else {"inputs": named["inputs"].requires_grad_()}
    if given.context is not None:
        return leaves | {"context": named["context"].requires_grad_()}
    if given.source is not None:
        source = named["context"].inputs
        return leaves | ({"source": source.requires_grad_()} if source.is_floating_point() else {})
    if named["initial_state"] is None:
        named["initial_state"] = _zero_states(model, len(given.inputs))
    states = {name: state.requires_grad_() for name, state in named["initial_state"].items()}
    renamed: Any = state_gradients(model.spec, states)  # it takes any values
    return {**leaves, **renamed}


def _zero_states(model: Model, B: int) -> dict[str, Tensor]:
    spec = model.spec
    zeros = np.zeros(spec.state_shape(B), model_dtype(model))
    device = next(model.parameters()).device
    return {name: to_tensor(zeros, device) for name in spec.cell_definition.states}


def _paired(
    outputs: Tensor, final: dict[str, Tensor], scores: Tensor | None, cotangents: Cotangents
) -> list[tuple[Tensor, Tensor]]:
    """Each result that has a cotangent, with it."""
    pairs = [(outputs, cotangents.outputs), (scores, cotangents.scores)]
    pairs += [(final[name], d) for name, d in (cotangents.final_states or {}).items()]
    return [(value, to_tensor(d, value.device)) for value, d in pairs if value is not None and d is not None]


BACKEND = TorchBackend()
