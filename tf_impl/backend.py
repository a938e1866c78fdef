"""The TensorFlow backend at the seam of `rnnzoo.spec.backend`.

Models are called eagerly: their loops over time are graphs, shared by all models of a process, and a graph of a whole
model would take a hundred times as long to make as a small model takes to run.
"""

from . import importing as importing  # first: TensorFlow itself

# isort: split

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from ..spec.backend import Result
from ..spec.encoder_decoder import AnySpec, Source, networks
from ..spec.errors import UnsupportedError
from ..spec.inputs import Cotangents, Inputs, checked_cotangents, checked_inputs, state_gradients
from ..spec.parameters import Weights, check_dtype
from ..spec.training import TrainingSpec
from . import weights as weight_table
from .arguments import context_of, named_states, tensors_of
from .cells import load_cell
from .encoder_decoder import EncoderDecoder, Model, build
from .files import FILES
from .model import SequenceModel
from .optimizers import dense
from .recurrent import Recurrent
from .training import Trainer

Tensors = dict[str, Any]


class TensorFlowBackend:
    """Keras objects inside, plain arrays at the seam."""

    name = "tf"
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
        """Inference. Raises InputError."""
        given = checked_inputs(
            model.spec, model.dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        with full_precision():
            found = _arrays(_results(model, _tensors(given)))
        return Result(found["outputs"], _part(found, "final."), found.get("scores"))

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
        """Gradients of everything for the given cotangents. Raises InputError."""
        spec = model.spec
        given = checked_inputs(
            spec, model.dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        cotangents = checked_cotangents(
            spec, model.dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        if given.context is None and given.source is None and given.initial_states is None:
            given = replace(given, initial_states=_zero_states(spec, len(given.inputs), model.dtype))
        arguments, weights = _tensors(given), weight_table.variables(model)
        sources = {f"weight.{name}": variable.value for name, variable in weights.items()}
        sources |= {name: value for name, value in arguments.items() if value.dtype.is_floating}
        with full_precision(), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            results = _results(model, arguments)
            d_results = _cotangents(cotangents)
            found = tape.gradient(
                {name: results[name] for name in d_results}, sources, d_results, tf.UnconnectedGradients.ZERO
            )
        found = _arrays({name: dense(gradient) for name, gradient in found.items()})
        gradients = {
            name: np.array(weight_table.turned(name, g), order="C") for name, g in _part(found, "weight.").items()
        }
        gradients |= {name: found[name] for name in ("inputs", "context") if name in found}
        gradients |= {"source": found["source.inputs"]} if "source.inputs" in found else {}
        return gradients | state_gradients(spec, _part(found, "initial."))

    def to_spec(self, model: Model) -> Weights:
        """A copy of the weights under their canonical names."""
        return weight_table.to_spec(model)

    def from_spec(self, model: Model, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError."""
        weight_table.from_spec(model, weights, cast=cast)

    def trainer(self, model: SequenceModel | EncoderDecoder, training: TrainingSpec) -> Trainer:
        """A trainer that updates the model in place."""
        return Trainer(model, training)


def _results(model: Model, given: Tensors) -> Tensors:
    """Outputs, final states and scores by name."""
    states, mask = _part(given, "initial.") or None, given.get("mask")
    if isinstance(model, Recurrent):
        outputs, final = model.outputs_and_states(given["inputs"], mask, states)
    else:
        scores, outputs, final = model(
            given["inputs"], mask=mask, initial_state=states, context=context_of(given), return_state=True
        )
        final = named_states(model.spec, final)
    found = {"outputs": outputs, **{f"final.{name}": state for name, state in final.items()}}
    return found if model.spec.head is None else found | {"scores": scores}


def _tensors(given: Inputs) -> Tensors:
    """The arguments that are given, by name."""
    return {name: tf.convert_to_tensor(value) for name, value in tensors_of(given).items() if value is not None}


def _cotangents(cotangents: Cotangents) -> Tensors:
    found = {"outputs": cotangents.outputs, "scores": cotangents.scores}
    found |= {f"final.{name}": state for name, state in (cotangents.final_states or {}).items()}
    return {name: tf.convert_to_tensor(value) for name, value in found.items() if value is not None}


def _zero_states(spec: AnySpec, batch: int, dtype: str) -> dict[str, Any]:
    return {name: np.zeros(spec.state_shape(batch), dtype) for name in spec.cell_definition.states}


def _arrays(tensors: Tensors) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Any], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextmanager
def full_precision() -> Iterator[None]:
    """Without TF32, which GPUs take for float32 products by default; the setting is put back."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


BACKEND = TensorFlowBackend()
