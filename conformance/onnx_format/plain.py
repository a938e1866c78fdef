"""onnxruntime, on the graphs that this package writes: standard `RNN` nodes, on the CPU."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...spec.backend import Array, Contents, Result
from ...spec.errors import BackendError, UnsupportedError
from ...spec.found import Original
from ...spec.inputs import Inputs, checked_inputs
from ...spec.model import ModelSpec
from ...spec.parameters import Weights, checked_weights, initial_weights
from ...spec.parts import StoredWeights
from ..precision import CANCELLING
from .files import FILES

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise BackendError(
        f"onnxruntime: the package {error.name!r} is not installed; run: pip install 'rnnzoo[onnx]'"
    ) from error


@dataclass
class OnnxModel:
    """A model as it runs.

    Attributes:
        spec, weights: in float32, as they are in the graph.
        session: an `onnxruntime.InferenceSession`.
    """

    spec: ModelSpec
    weights: Weights
    session: Any
    backend_name: str


class OnnxRuntime:
    """Inference in float32, as onnxruntime has no RNN in float64.

    Attributes:
        takes: no mask, as an RNN node takes lengths.
        precisions: what a proof allows for, as its tanh has an absolute error near 0.
        target: by which `load_backend` finds it.
        own_words: what `original` runs.
    """

    name = "onnxruntime"
    dtypes = ("float32",)
    takes = ("lengths", "initial_state")
    precisions: Mapping[str, str] = {"float32": CANCELLING}
    holds_weights = False
    own_words = "the file's own nodes"
    target = f"{__name__}:BACKEND"
    final_state = "final_state"  # the output of the graph that is taken for it

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why a model cannot be run."""
        return FILES.holds(spec)

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> OnnxModel:
        """A model with its initial weights. Raises UnsupportedError."""
        if reason := self.supports(spec):
            raise UnsupportedError(reason)
        if dtype not in self.dtypes:
            raise UnsupportedError(f"dtype {dtype}: onnxruntime has no RNN but in float32; build the model in float32")
        weights = initial_weights(spec, seed)
        return OnnxModel(spec, weights, self._session(spec, weights), self.target)

    def loaded(self, path: Path, spec: ModelSpec, prefix: str = "") -> OnnxModel:
        """The file that `FILES.write` wrote, as it is. Raises FileError or WeightError."""
        weights = checked_weights(spec, StoredWeights(FILES.find(path).layers[0].parts), "float32")
        return OnnxModel(spec, weights, self.opened(path), self.target)

    def original(self, layer: Original, spec: ModelSpec, weights: Weights) -> OnnxModel:
        """The file's own nodes, as they are, in a graph that feeds them. Raises UnsupportedError."""
        from .assembling import assembled  # which needs onnx, as nothing else here does to read or run

        try:
            session = self.opened(assembled(layer))
        except Exception as error:  # onnxruntime and protobuf have no root of their errors
            raise UnsupportedError(f"onnxruntime does not take its nodes: {error}") from error
        return OnnxModel(spec, weights, session, self.target)

    def to_spec(self, model: OnnxModel) -> Weights:
        """A copy of the weights under their canonical names."""
        return {name: array.copy() for name, array in model.weights.items()}

    def from_spec(self, model: OnnxModel, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights, in a new session. Raises WeightError."""
        checked = checked_weights(model.spec, weights, "float32", cast=cast)
        model.weights = {name: np.array(array) for name, array in checked.items()}
        model.session = self._session(model.spec, model.weights)

    def run(
        self,
        model: OnnxModel,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Result:
        """Inference. Raises InputError, or UnsupportedError for a mask that is no lengths."""
        given = checked_inputs(
            model.spec, "float32", inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        names = ["outputs", self.final_state, *(["scores"] if model.spec.head else [])]
        outputs, final_state, *scores = model.session.run(names, _feeds(model.spec, given))
        return Result(outputs, {model.spec.cell_definition.states[0]: final_state}, *scores)

    def opened(self, model: Path | bytes) -> Any:
        """A session of a model, in a file or serialized; of one thread, as the matrices are small."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _session(self, spec: ModelSpec, weights: Weights) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            FILES.write(path, Contents(spec, weights, {}))
            return self.opened(path)


def _feeds(spec: ModelSpec, given: Inputs) -> dict[str, Array]:
    """The graph's inputs by name, all of which it needs."""
    rows, steps = given.inputs.shape[:2]
    lengths = np.full(rows, steps) if given.mask is None else given.mask.sum(axis=1)
    if given.mask is not None and not (given.mask == (np.arange(steps) < lengths[:, None])).all():
        raise UnsupportedError("mask: ONNX' RNN takes lengths, no mask with holes or padding on the left")
    feeds = {"inputs": given.inputs, "lengths": lengths.astype(np.int32)}
    if given.context is not None:
        return {**feeds, "context": given.context}
    if spec.context:
        raise UnsupportedError("initial_state: the graph of a model with a context takes the context; give that")
    states = given.initial_states or {"": np.zeros(spec.state_shape(rows), np.float32)}
    return {**feeds, "initial_state": next(iter(states.values()))}


BACKEND = OnnxRuntime()
