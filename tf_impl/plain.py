"""Keras' own layers and models at the seam of `rnnzoo.spec.backend`: what others build, and what plain files give.

A model is `SimpleRNN`, `RNN` of `SimpleRNNCell`s or `Bidirectional` of them, or a `Sequential` or functional model that
is a chain of such layers, behind an `Embedding` or not, with a `Dense` at its end or not.
"""

from . import importing as importing  # first: TensorFlow itself

# isort: split

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from ..spec.backend import Result
from ..spec.errors import UnsupportedError
from ..spec.found import Hints, Original
from ..spec.inputs import Cotangents, Inputs, checked_cotangents, checked_inputs
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, checked_weights, initial_weights, weights_dtype
from . import architecture
from .anatomy import Anatomy, anatomy_of, built_cells
from .backend import full_precision
from .files import FILES
from .merging import merge
from .rebuilding import rebuilt

Tensor = Any


class PlainKeras:
    """Keras' own objects, as they are: nothing is repaired but what stands at invalid steps, which is 0 here.

    Attributes:
        own_words: what `original` runs.
    """

    name = "keras"
    own_words = "the file's own configuration"

    def owns(self, model: Any) -> bool:
        """Whether it is a layer or a model of Keras', not one of this package."""
        modules = [base.__module__.partition(".")[0] for base in type(model).__mro__]
        return "keras" in modules and "rnnzoo" not in modules

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be built."""
        return FILES.holds(spec, plain=True)

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Any:
        """A functional model with the spec's initial values. Raises UnsupportedError or WeightError."""
        if reason := self.supports(spec):
            raise UnsupportedError(reason)
        weights = initial_weights(spec, seed, dtype)
        model = keras.saving.deserialize_keras_object(architecture.plain_model(spec, dtype))
        self.from_spec(model, weights)
        return model

    def loaded(self, path: Path, spec: ModelSpec, prefix: str = "") -> Any:
        """What Keras makes of a plain file that this package wrote; of no other, as Keras runs what is in them."""
        if path.suffix == ".keras":
            return keras.saving.load_model(path, compile=False)
        dtype = FILES.find(path, Hints(spec)).layers[0].parts["layers.0.forward.input_weight"].tensor.dtype
        model = self.build(spec, dtype=dtype)
        model.load_weights(path)
        return model

    def original(self, layer: Original, spec: ModelSpec, weights: Weights) -> Any:
        """Layers that Keras builds from the file's own options. Raises UnsupportedError or ConformanceError."""
        return rebuilt(layer, weights_dtype(weights))

    def spec_of(self, model: Any) -> ModelSpec:
        """What it is to the spec. Raises UnsupportedError for what the spec does not have, by its name."""
        return anatomy_of(model).spec

    def variables(self, model: Any) -> dict[str, tuple[Any, bool]]:
        """The Keras variables by canonical name, and whether each is transposed. Raises UnsupportedError."""
        return anatomy_of(model).variables

    def to_spec(self, model: Any) -> Weights:
        """A copy of the weights under their canonical names."""
        found = self.variables(model).items()
        return {name: _array(variable.value, transposed) for name, (variable, transposed) in found}

    def from_spec(self, model: Any, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError unless every name, shape and dtype fits."""
        anatomy = anatomy_of(model)
        checked = checked_weights(anatomy.spec, weights, anatomy.dtype, cast=cast)
        for name, (variable, transposed) in anatomy.variables.items():
            variable.assign(checked[name].T if transposed else checked[name])

    def run(
        self,
        model: Any,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Result:
        """Inference. Raises InputError.

        The scores are the whole model's own where it can be given all of that: neither an initial state nor a mask.
        """
        anatomy = anatomy_of(model)
        given = checked_inputs(
            anatomy.spec, anatomy.dtype, inputs,
            lengths=lengths, mask=mask, initial_state=initial_state, context=context,
        )  # fmt: skip
        with full_precision():
            found = _results(anatomy, given, _tensors(given))
        scores = found.get("scores")
        state = {anatomy.spec.cell_definition.states[0]: found["state"].numpy()}
        return Result(found["outputs"].numpy(), state, None if scores is None else scores.numpy())

    def gradients(
        self,
        model: Any,
        inputs: ArrayLike,
        outputs_cotangent: ArrayLike | None = None,
        final_state_cotangent: ArrayLike | Mapping[str, ArrayLike] | None = None,
        scores_cotangent: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Gradients of everything for the given cotangents. Raises InputError."""
        anatomy = anatomy_of(model)
        spec, dtype = anatomy.spec, anatomy.dtype
        given = checked_inputs(
            spec, dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        cotangents = checked_cotangents(
            spec, dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        if given.initial_states is None:
            zeros = np.zeros(spec.state_shape(len(given.inputs)), dtype)
            given = replace(given, initial_states={spec.cell_definition.states[0]: zeros})
        return _gradients(anatomy, given, cotangents)


def _tensors(given: Inputs) -> dict[str, Tensor]:
    found = {"inputs": tf.convert_to_tensor(given.inputs)}
    if given.initial_states is not None:
        found["initial_state"] = tf.convert_to_tensor(next(iter(given.initial_states.values())))
    return found


def _results(anatomy: Anatomy, given: Inputs, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs, final state and scores."""
    mask = None if given.mask is None else tf.convert_to_tensor(given.mask)
    inputs, initial, states = tensors["inputs"], tensors.get("initial_state"), list[Any]()
    if anatomy.embedding is not None and mask is not None:
        inputs = tf.where(mask, inputs, tf.zeros([], inputs.dtype))
    x = inputs if anatomy.embedding is None else anatomy.embedding(inputs)
    with ExitStack() as stack:
        for layer in anatomy.recurrent:
            stack.enter_context(_telling_all(layer))
            count = len(built_cells(layer))
            start = {} if initial is None else {"initial_state": tf.unstack(initial)[len(states) : len(states) + count]}
            x, *final = layer(x, mask=mask, **start)
            states += final
    found = {"outputs": _zeroed(x, mask), "state": tf.stack(states)}
    if anatomy.head is None:
        return found
    if initial is None and mask is None:
        scores = anatomy.model(inputs)
    else:  # a model takes no initial state, and its Embedding hands no mask on
        top = states[-anatomy.spec.num_directions :]
        scores = anatomy.head(x if _reads_steps(anatomy) else merge(anatomy.spec.merge, top))
    return found | {"scores": _zeroed(scores, mask) if _reads_steps(anatomy) else scores}


def _reads_steps(anatomy: Anatomy) -> bool:
    return anatomy.spec.head is not None and anatomy.spec.head.reads == "steps"


def _zeroed(series: Tensor, mask: Tensor | None) -> Tensor:
    return series if mask is None else tf.where(mask[:, :, None], series, tf.zeros([], series.dtype))


@contextmanager
def _telling_all(layer: Any) -> Iterator[None]:
    """Within, the layer gives the outputs of all steps, and its final states."""
    parts = [layer, *(getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name))]
    before = [(part.return_sequences, part.return_state) for part in parts]
    try:
        for part in parts:
            part.return_sequences = part.return_state = True
        yield
    finally:
        for part, (sequences, state) in zip(parts, before, strict=True):
            part.return_sequences, part.return_state = sequences, state


def _gradients(anatomy: Anatomy, given: Inputs, cotangents: Cotangents) -> dict[str, Any]:
    tensors = _tensors(given)
    sources = {name: variable.value for name, (variable, _) in anatomy.variables.items()}
    sources |= {name: tensor for name, tensor in tensors.items() if tensor.dtype.is_floating}
    wanted = {"outputs": cotangents.outputs, "scores": cotangents.scores}
    wanted["state"] = None if cotangents.final_states is None else next(iter(cotangents.final_states.values()))
    weights = {name: tf.convert_to_tensor(array) for name, array in wanted.items() if array is not None}
    with full_precision(), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        results = _results(anatomy, given, tensors)
        found = tape.gradient({name: results[name] for name in weights}, sources, weights, tf.UnconnectedGradients.ZERO)
    turned = {name: transposed for name, (_, transposed) in anatomy.variables.items()}
    return {name: _array(tf.convert_to_tensor(slope), turned.get(name, False)) for name, slope in found.items()}


def _array(tensor: Tensor, transposed: bool) -> Any:
    array = tensor.numpy()
    return np.array(array.T if transposed else array, order="C")


BACKEND = PlainKeras()
