"""Cases without end: models and sequences of any kind, up to long ones and to recurrent weights that amplify."""

from dataclasses import replace
from typing import Any

from ..spec import draws
from ..spec.definitions import BIASES, load_variant, variant_names
from ..spec.initializers import INITIALIZERS, Draw
from ..spec.model import MERGES, NONLINEARITIES, Context, Embedding, Head, ModelSpec
from .cases import DTYPES, SEQUENCES, Case
from .items import Item, item

LONGEST, LARGEST_GAIN = 64, 1.5


def random_case(number: int) -> Case:
    """The case of that number, the same everywhere; half of them a plain layer, half with some part around it."""
    draw = _Draws(number)
    variant = draw.choice(variant_names())
    topology = load_variant(variant)
    gain = draw.between(0.3, LARGEST_GAIN)
    parts: dict[str, Any] = {}
    if draw.between(0, 1) < 0.5:
        parts = {"head": Head(draw.size(5), bool(draw.size(2) - 1), draw.choice(("steps", "final")))}
        parts |= draw.choice(({}, {"embedding": Embedding(draw.size(9))}, {"context": Context(draw.size(4))}))
    spec = ModelSpec(
        variant,
        input_size=draw.size(8),
        hidden_size=draw.size(12),
        num_layers=1 if topology.maximum_layers == 1 else 1 + draw.size(3),
        nonlinearity=draw.choice(NONLINEARITIES),
        bias=draw.choice(BIASES),
        merge=draw.choice(MERGES) if len(topology.directions) == 2 else MERGES[0],
        initializer=replace(INITIALIZERS["torch"], recurrent_weight=Draw("orthogonal", gain)),
        **parts,
    )
    steps = round(LONGEST ** draw.between(0, 1))
    sequences, initial = draw.choice(SEQUENCES), bool(draw.size(2) - 1)
    return Case(spec, draw.size(4), steps, sequences, initial, seed=2 + number)


def random_items(count: int) -> list[Item]:
    """Results and gradients of random cases, in both precisions."""
    cases = [random_case(number) for number in range(count)]
    return [item(check, case, dtype) for case in cases for dtype in DTYPES for check in ("results", "gradients")]


class _Draws:
    """One number after the other out of a stream of its own."""

    def __init__(self, number: int) -> None:
        self._numbers = iter(draws.uniform(number, "case", 100))

    def between(self, low: float, high: float) -> float:
        return float(low + (high - low) * next(self._numbers))

    def size(self, most: int) -> int:
        """1 to the most, each as likely."""
        return 1 + int(next(self._numbers) * most)

    def choice(self, options: Any) -> Any:
        return options[self.size(len(options)) - 1]
