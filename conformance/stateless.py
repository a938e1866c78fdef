"""Backends for implementations that keep no model: they are handed the spec and the weights with every run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..spec.backend import Result, unsupported
from ..spec.contract import TAKES, asked
from ..spec.errors import BackendError, UnsupportedError
from ..spec.inputs import Cotangents, Inputs, checked_cotangents, checked_inputs
from ..spec.model import ModelSpec
from ..spec.parameters import Weights, checked_weights, initial_weights

Array = NDArray[Any]


@dataclass
class StatelessModel:
    """A spec, its canonical weights and their dtype: all that such a model is."""

    spec: ModelSpec
    weights: Weights
    dtype: str
    backend_name: str


class StatelessBackend:
    """The required part of a backend over two methods: `supports` and `results`.

    Attributes:
        name: what the suite calls it.
        dtypes: the precisions that it computes in.
        takes: which optional arrays it takes.
    """

    holds_weights = False
    name: str
    dtypes: tuple[str, ...] = ("float32", "float64")
    takes: tuple[str, ...] = TAKES

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        raise self._missing("supports(spec)")

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """What the implementation computes, from checked arguments in the model's dtype."""
        raise self._missing("results(model, given)")

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> StatelessModel:
        """The spec with its initial weights. Raises UnsupportedError or WeightError."""
        reason = unsupported(self, spec)
        if reason is None and dtype not in self.dtypes:
            reason = f"{self.name} computes in {' and '.join(self.dtypes)}, not in {dtype}"
        if reason:
            raise UnsupportedError(reason)
        return StatelessModel(spec, initial_weights(spec, seed, dtype), dtype, self.name)

    def run(
        self,
        model: StatelessModel,
        inputs: ArrayLike,
        lengths: ArrayLike | None = None,
        initial_state: ArrayLike | Mapping[str, ArrayLike] | None = None,
        *,
        mask: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Result:
        """Inference. Raises InputError."""
        given = self._checked(model, inputs, lengths, initial_state, mask, context)
        found: Result = asked(self, "results", model, given)
        return found

    def to_spec(self, model: StatelessModel) -> Weights:
        """A copy of the weights under their canonical names."""
        return {name: array.copy() for name, array in model.weights.items()}

    def from_spec(self, model: StatelessModel, weights: Mapping[str, ArrayLike], *, cast: bool = False) -> None:
        """Set all weights. Raises WeightError."""
        checked = checked_weights(model.spec, weights, model.dtype, cast=cast)
        model.weights = {name: np.array(array) for name, array in checked.items()}

    def _missing(self, method: str) -> BackendError:
        return BackendError(f"{self.name}: expected the class {type(self).__name__} to have {method}, got none")

    def _checked(self, model: StatelessModel, inputs: Any, lengths: Any, state: Any, mask: Any, context: Any) -> Inputs:
        return checked_inputs(
            model.spec, model.dtype, inputs, lengths=lengths, mask=mask, initial_state=state, context=context
        )


class DifferentiatingStatelessBackend(StatelessBackend):
    """The same with gradients, over one more method, `derivatives`."""

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """All gradients under the names of SPEC.md, 11.2."""
        raise self._missing("derivatives(model, given, cotangents)")

    def gradients(
        self,
        model: StatelessModel,
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
        """Gradients of everything for the given cotangents. Raises InputError."""
        given = self._checked(model, inputs, lengths, initial_state, mask, context)
        cotangents = checked_cotangents(
            model.spec, model.dtype, *given.inputs.shape[:2],
            outputs=outputs_cotangent, final_state=final_state_cotangent, scores=scores_cotangent,
        )  # fmt: skip
        found: dict[str, Array] = asked(self, "derivatives", model, given, cotangents)
        return found
