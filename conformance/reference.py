"""The oracle as a backend: exact results, for the side of a comparison whose framework cannot run the model."""

from ..spec.backend import Result
from ..spec.encoder_decoder import AnySpec
from ..spec.inputs import Cotangents, Inputs
from .bounds import gradients, results, truth
from .stateless import Array, DifferentiatingStatelessBackend, StatelessModel


class Reference(DifferentiatingStatelessBackend):
    """Runs any model at 40 digits and rounds to float64; `exact` says that no error is allowed for."""

    name = "oracle"
    exact = True
    encoder_decoders = True

    def supports(self, spec: AnySpec) -> str | None:
        """None: it runs any model."""
        return None

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """What SPEC.md says, to the last digit of float64."""
        found = {name: value.nearest for name, value in truth(results(model.spec, model.weights, given)).items()}
        states = {name.removeprefix("final_state."): a for name, a in found.items() if name.startswith("final_state.")}
        return Result(found["outputs"], states, found.get("scores"))

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """The same of the gradients."""
        found = truth(gradients(model.spec, model.weights, given, cotangents))
        return {name: value.nearest for name, value in found.items()}


BACKEND = Reference()
