"""The NumPy backend at the seam of `rnnzoo.spec.backend`."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from ..spec.backend import Result
from ..spec.encoder_decoder import AnySpec, Source, networks
from ..spec.errors import UnsupportedError
from ..spec.inputs import checked_cotangents, checked_inputs
from ..spec.parameters import Weights, check_dtype
from ..spec.training import TrainingSpec
from . import weights as weight_table
from .cells import load_cell
from .encoder_decoder import EncoderDecoder, build
from .files import FILES
from .model import SequenceModel
from .training import Trainer

Model = SequenceModel | EncoderDecoder


class NumpyBackend:
    """Plain arrays in, plain arrays out: the reference of the three."""

    name = "numpy"
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
        return model(inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context)

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
        given = checked_inputs(
            model.spec, model.dtype, inputs, lengths=lengths, mask=mask, initial_state=initial_state, context=context
        )
        cotangents = checked_cotangents(
            model.spec, model.dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        return model.backward(model.forward(given, outputs=False)[1], cotangents)

    def to_spec(self, model: Model) -> Weights:
        """A copy of the weights under their canonical names."""
        return weight_table.to_spec(model)

    def from_spec(self, model: Model, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError."""
        weight_table.from_spec(model, weights, cast=cast)

    def trainer(self, model: Model, training: TrainingSpec) -> Trainer:
        """A trainer that updates the model in place."""
        return Trainer(model, training)


BACKEND = NumpyBackend()
