"""Cases without end: models and sequences of any kind, up to long ones and to recurrent weights that amplify.

One in ten has an encoder with its decoder beside it, and one a training run with dropout.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..spec import draws
from ..spec.definitions import BIASES, load_variant, variant_names
from ..spec.dropout import Dropout
from ..spec.encoder_decoder import final_state_size
from ..spec.initializers import INITIALIZERS, Draw
from ..spec.model import MERGES, NONLINEARITIES, Context, Embedding, Head, ModelSpec
from ..spec.optimizers import SGD
from ..spec.training import CrossEntropy, TrainingSpec
from .cases import DTYPES, SEQUENCES, Case
from .items import Item, item
from .pair_cases import PairCase
from .training import TrainingCase

LONGEST, LONGEST_TRAINED, LARGEST_GAIN = 64, 8, 1.5


def random_case(number: int) -> Case:
    """The case of that number, the same everywhere; half of them a plain layer, half with some part around it."""
    draw = _Draws(number, "case")
    variant, gain = _core(draw)
    parts: dict[str, Any] = {}
    if draw.between(0, 1) < 0.5:
        parts = {"head": _head(draw, 1)}
        parts |= draw.choice(({}, {"embedding": Embedding(draw.size(9))}, {"context": Context(draw.size(4))}))
    spec = _model(draw, variant, gain, parts)
    steps = _steps(draw, LONGEST)
    sequences, initial = draw.choice(SEQUENCES), bool(draw.size(2) - 1)
    return Case(spec, draw.size(4), steps, sequences, initial, seed=2 + number)


def random_pair(number: int) -> PairCase:
    """The encoder with its decoder of that number."""
    draw = _Draws(number, "pair")
    encoder = _model(draw, *_core(draw), draw.choice(({}, {"embedding": Embedding(draw.size(9))})))
    parts: dict[str, Any] = {"head": _head(draw, 1), "context": Context(final_state_size(encoder))}
    decoder = _model(draw, *_core(draw), parts | draw.choice(({}, {"embedding": Embedding(draw.size(9))})))
    rows, seed = draw.size(4), 2 + number
    source = Case(encoder, rows, _steps(draw, LONGEST), draw.choice(SEQUENCES), seed=seed)
    return PairCase(source, Case(decoder, rows, _steps(draw, LONGEST), draw.choice(SEQUENCES), seed=seed))


def random_training(number: int) -> TrainingCase:
    """The training run of that number, which drops."""
    draw = _Draws(number, "training")
    variant, gain = _core(draw)
    spec = _model(draw, variant, gain / 2, {"head": _head(draw, 2)})  # as dropout doubles what it keeps, at most
    rates = [draw.between(0.1, 0.5) for _ in range(3)]
    spec = replace(spec, dropout=Dropout(rates[0] if spec.num_layers > 1 else 0.0, *rates[1:]))
    accumulates = bool(draw.size(2) - 1)
    sequences = draw.choice([kind for kind in SEQUENCES if not (accumulates and kind == "nan_padding")])
    case = Case(spec, draw.size(4), _steps(draw, LONGEST_TRAINED), sequences, seed=2 + number)
    training = TrainingSpec(CrossEntropy("mean"), SGD(0.1, 0.9), seed=number)
    return TrainingCase(case, training, bool(draw.size(2) - 1), accumulates)


def random_items(count: int) -> list[Item]:
    """Results and gradients of random cases, and training runs, in both precisions."""
    found = []
    for number in range(count):
        checks = ("results", "gradients")
        found += [item(check, random_case(number), dtype) for dtype in DTYPES for check in checks]
        if number % 10 == 1:
            found += [item("training", random_training(number), dtype) for dtype in DTYPES]
        if number % 10 == 3:
            found += [item(check, random_pair(number), dtype) for dtype in DTYPES for check in checks]
    return found


def _core(draw: "_Draws") -> tuple[str, float]:
    """A variant, and by how much its recurrent weights amplify."""
    return draw.choice(variant_names()), draw.between(0.3, LARGEST_GAIN)


def _head(draw: "_Draws", least: int) -> Head:
    return Head(least - 1 + draw.size(5), bool(draw.size(2) - 1), draw.choice(("steps", "final")))


def _model(draw: "_Draws", variant: str, gain: float, parts: Mapping[str, Any]) -> ModelSpec:
    topology = load_variant(variant)
    return ModelSpec(
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


def _steps(draw: "_Draws", most: int) -> int:
    """1 to the most, short ones as likely as long ones."""
    power: float = most ** draw.between(0, 1)
    return round(power)


class _Draws:
    """One number after the other out of a stream of its own."""

    def __init__(self, number: int, stream: str) -> None:
        self._numbers = iter(draws.uniform(number, stream, 100))

    def between(self, low: float, high: float) -> float:
        return float(low + (high - low) * next(self._numbers))

    def size(self, most: int) -> int:
        """1 to the most, each as likely."""
        return 1 + int(next(self._numbers) * most)

    def choice(self, options: Any) -> Any:
        return options[self.size(len(options)) - 1]
