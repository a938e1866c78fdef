"""A backend around another one: what every fault that the protocol can express is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...spec.backend import Result
from ...spec.inputs import checked_mask
from ...spec.model import ModelSpec
from ...spec.training import TrainingSpec

Array = NDArray[Any]
Arguments = Mapping[str, Any]  # of `run`, without `inputs`; of `gradients`, the cotangents


@dataclass
class Model:
    """A model of the backend inside, and what a fault has to remember of it."""

    spec: ModelSpec
    dtype: str
    inner: Any
    backend_name: str
    kept: dict[str, Any] = field(default_factory=dict)


class Wrapped:
    """Hands everything on to the backend inside. A fault overrides what it gets wrong.

    Weights go through `inward` and `outward`, runs through `results`, gradients through `derivatives`.
    It is a context of itself, as nothing has to be put back.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.name = str(backend.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    @property
    def own(self) -> set[str]:
        """The names of the methods here that a fault has others for, `__init__` apart."""
        methods = {name: one for name, one in vars(Wrapped).items() if callable(one) and name != "__init__"}
        return {name for name, one in methods.items() if getattr(type(self), name) is not one}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)  # `takes`, `files`, and whatever else it shows

    def supports(self, spec: ModelSpec) -> str | None:
        reason: str | None = self.backend.supports(spec)
        return reason

    def build(self, spec: ModelSpec, seed: int = 0, dtype: str = "float32") -> Model:
        return Model(spec, dtype, self.backend.build(spec, seed=seed, dtype=dtype), self.name)

    def from_spec(self, model: Model, weights: Mapping[str, Any], *, cast: bool = False) -> None:
        self.backend.from_spec(model.inner, self.inward(model.spec, weights), cast=cast)

    def to_spec(self, model: Model) -> dict[str, Array]:
        return self.outward(model.spec, self.backend.to_spec(model.inner))

    def run(
        self,
        model: Model,
        inputs: Any,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        mask: Any = None,
        context: Any = None,
    ) -> Result:
        return self.results(
            model, np.asarray(inputs), _given(lengths=lengths, initial_state=initial_state, mask=mask, context=context)
        )

    def gradients(
        self,
        model: Model,
        inputs: Any,
        outputs_cotangent: Any = None,
        final_state_cotangent: Any = None,
        scores_cotangent: Any = None,
        lengths: Any = None,
        initial_state: Any = None,
        *,
        mask: Any = None,
        context: Any = None,
    ) -> dict[str, Array]:
        cotangents = _given(
            outputs_cotangent=outputs_cotangent,
            final_state_cotangent=final_state_cotangent,
            scores_cotangent=scores_cotangent,
        )
        arguments = _given(lengths=lengths, initial_state=initial_state, mask=mask, context=context)
        return self.derivatives(model, np.asarray(inputs), cotangents, arguments)

    def trainer(self, model: Model, training: TrainingSpec) -> Any:
        return self.backend.trainer(model.inner, training)

    def inward(self, spec: ModelSpec, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        return weights

    def outward(self, spec: ModelSpec, weights: dict[str, Array]) -> dict[str, Array]:
        return weights

    def results(self, model: Model, inputs: Array, arguments: Arguments) -> Result:
        result: Result = self.backend.run(model.inner, inputs, **arguments)
        return result

    def derivatives(self, model: Model, inputs: Array, cotangents: Arguments, arguments: Arguments) -> dict[str, Array]:
        found: dict[str, Array] = self.backend.gradients(model.inner, inputs, **cotangents, **arguments)
        return found


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def changed(
    weights: Mapping[str, Any], ending: str, change: Callable[[Array], Array], part: str = "layers."
) -> dict[str, Any]:
    """The weights, with those of a part whose names have the ending changed."""
    return {
        name: change(np.asarray(a)) if name.startswith(part) and name.endswith(ending) else a
        for name, a in weights.items()
    }


def valid_steps(inputs: Array, arguments: Arguments) -> NDArray[np.bool_]:
    """(B, T), True where a step is valid."""
    rows, steps = inputs.shape[:2]
    found = checked_mask(rows, steps, arguments.get("lengths"), arguments.get("mask"))
    return np.ones((rows, steps), np.bool_) if found is None else found


def without_padding(inputs: Array, valid: NDArray[np.bool_]) -> Array:
    """The inputs with 0 at invalid steps."""
    return np.where(valid[(...,) + (None,) * (inputs.ndim - 2)], inputs, np.zeros((), inputs.dtype))


def states_given(spec: ModelSpec, arguments: Arguments) -> dict[str, Array] | None:
    """The initial states by name, where there are any."""
    given = arguments.get("initial_state")
    if given is None:
        return None
    return dict(given) if isinstance(given, Mapping) else {spec.cell_definition.states[0]: np.asarray(given)}


def halves(spec: ModelSpec, outputs: Array) -> list[Array]:
    """Of each direction the outputs; one of them where they have been merged into one."""
    return np.split(outputs, spec.num_directions if spec.merge == "concat" else 1, axis=-1)
