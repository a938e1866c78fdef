"""Short training runs: a model, how it is trained, and on what."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spec.data import Described, check_flag
from ..spec.dropout import Dropout
from ..spec.encoder_decoder import AnySpec
from ..spec.errors import SpecError
from ..spec.inputs import Inputs
from ..spec.model import Context, Embedding, Head, ModelSpec
from ..spec.optimizers import SGD, Adagrad, Adam, Optimizer, RMSprop
from ..spec.schedules import Cosine, StepDecay, WarmUp
from ..spec.training import Batch, ClipByGlobalNorm, ClipByValue, CrossEntropy, MeanSquaredError, TrainingSpec
from .arithmetic import Exact
from .case_table import covering
from .cases import Case
from .descent import descent, side_by_side
from .oracle import Named
from .pair_cases import AnyCase, PairCase, pair

Array = NDArray[Any]
Row = tuple[ModelSpec, str, TrainingSpec, bool]
STEPS = 3
STEPWISE, FINAL = Head(3), Head(3, reads="final")
SIMPLE = ModelSpec("simple_rnn", 2, 3, head=STEPWISE)
BI = ModelSpec("bi_rnn", 2, 3, bias="double", merge="average", head=FINAL)
STACKED = ModelSpec("stacked_rnn", 2, 3, 2, bias="double", head=STEPWISE)
STACKED_BI = ModelSpec("stacked_bi_rnn", 2, 3, 2, nonlinearity="sigmoid", head=STEPWISE)
NUMBERS = ("kind", "learning_rate", "beta1", "beta2", "alpha", "epsilon")  # what no name of a case tells


@dataclass(frozen=True)
class TrainingCase(Described):
    """A model, a training spec, and three batches; from the second on they carry the state if `carries`.

    If `accumulates`, the second and the third make one update; all steps of the third are valid, others of the second.
    """

    case: AnyCase
    training: TrainingSpec
    carries: bool = False
    accumulates: bool = False

    KIND: ClassVar[str] = "training_case"
    PARTS: ClassVar[Mapping[str, type[Described] | tuple[type[Described], ...]]] = {
        "case": (Case, PairCase), "training": TrainingSpec,
    }  # fmt: skip

    def __post_init__(self) -> None:
        head = self.case.spec.head
        if head is None or (isinstance(self.training.loss, CrossEntropy) and head.size < 2):
            raise SpecError("training case: expected a model with a head, of at least 2 classes for cross_entropy")
        check_flag("training case carries", self.carries)
        check_flag("training case accumulates", self.accumulates)
        if self.accumulates and self.case.kinds_of_sequences[-1] == "nan_padding":
            raise SpecError("training case: expected no NaN with accumulates, as all steps of its last batch are valid")

    @property
    def spec(self) -> AnySpec:
        """The model."""
        return self.case.spec

    @property
    def name(self) -> str:
        """A name that tells the case apart from all others."""
        training = self.training
        clip = training.clip.KIND if training.clip else "unclipped"
        rule = f"{training.loss.KIND}_{training.loss.reduction}-{label(training.optimizer)}-{clip}"
        rule += f"-{training.schedule.KIND}" if training.schedule else ""
        rule += f"-seed_{training.seed}" if training.seed else ""
        return (
            f"{rule}-{'carried-' if self.carries else ''}{'accumulated-' if self.accumulates else ''}{self.case.name}"
        )

    def updates(self) -> list[tuple[Batch, ...]]:
        """The batches of each update."""
        first, *others = self.batches()
        return [(first,), tuple(others)] if self.accumulates else [(batch,) for batch in (first, *others)]

    def batches(self) -> list[Batch]:
        """The batches, all of one shape."""
        return [self._batch(step) for step in range(STEPS)]

    def _batch(self, step: int) -> Batch:
        case, head = self.case, self.case.spec.head
        assert head is not None
        B, T = case.rows, case.steps
        shape = (B, T) if head.reads == "steps" else (B,)
        if isinstance(self.training.loss, CrossEntropy):
            targets: Array = ((case.numbers(f"targets {step}", *shape) + 1) / 2 * head.size).astype(np.int64)
            targets = np.minimum(targets, head.size - 1)  # a number may have been rounded up to 1
        else:
            targets = case.numbers(f"targets {step}", *shape, head.size)
        inputs = np.roll(case.inputs, step, axis=-1)
        continues = self.carries and step > 0
        starts = (
            {} if continues else {k: case.arguments[k] for k in ("initial_state", "context") if k in case.arguments}
        )
        whole = self.accumulates and step == STEPS - 1
        masks = {} if whole else {k: case.arguments[k] for k in ("lengths", "mask") if k in case.arguments}
        return Batch(inputs, targets, continues=continues, **starts, **masks)


def training_cases() -> list[TrainingCase]:
    """Every loss, reduction, optimizer, clip and schedule, each with several of the others."""
    scaled = Case(ModelSpec("simple_rnn", 2, 3, 1, "identity", head=STEPWISE), 3, 4, "empty_row", True, scale=1000.0)
    thousands = TrainingCase(scaled, TrainingSpec(CrossEntropy("mean"), SGD(1e-4)), False)
    rows = [*_first_rows(), *_rows_of_optimizers()]
    found = [
        TrainingCase(Case(spec, 3, 4, kind, spec.context is None), training, carries)
        for spec, kind, training, carries in rows
    ]
    accumulated = [
        TrainingCase(Case(SIMPLE, 3, 4, "empty_row", True), TrainingSpec(loss, SGD(0.1, 0.9), clip), True, True)
        for loss, clip in ((CrossEntropy("mean"), ClipByGlobalNorm(0.1)), (MeanSquaredError("batch_mean"), None))
    ]
    return [thousands, *found, *accumulated, *_dropped()]


def _dropped() -> list[TrainingCase]:
    """Each kind of dropout alone, then all of them."""
    training = TrainingSpec(CrossEntropy("mean"), SGD(0.1, 0.9))
    seeded = replace(training, clip=ClipByGlobalNorm(0.1), seed=2**40 + 7)
    rows: list[tuple[ModelSpec, Dropout, str, TrainingSpec, bool, bool]] = [
        (STACKED, Dropout(between_layers=0.5), "lengths", training, True, False),
        (BI, Dropout(inputs=0.5), "left_padding", training, False, False),
        (SIMPLE, Dropout(state=0.4), "holes", seeded, True, True),
        (STACKED_BI, Dropout(0.3, 0.2, 0.4), "empty_row", training, True, False),
    ]
    return [
        TrainingCase(Case(replace(spec, dropout=dropout), 3, 4, kind, True), training, carries, accumulates)
        for spec, dropout, kind, training, carries, accumulates in rows
    ]


def _first_rows() -> list[Row]:
    mean, total, rows = CrossEntropy("mean"), CrossEntropy("sum"), CrossEntropy("batch_mean")
    squares, norm, value = MeanSquaredError, ClipByGlobalNorm, ClipByValue
    tokens = ModelSpec("stacked_rnn", 2, 3, 2, "identity", bias="none", embedding=Embedding(3), head=STEPWISE)
    about = ModelSpec("bi_rnn", 2, 3, 1, "sigmoid", merge="multiply", context=Context(2), head=FINAL)
    return [
        (SIMPLE, "full", TrainingSpec(mean, SGD(0.1)), True),
        (SIMPLE, "empty_row", TrainingSpec(total, SGD(0.1, 0.9), norm(0.5)), True),
        (BI, "lengths", TrainingSpec(mean, Adam(0.01), norm(0.05)), False),
        (BI, "full", TrainingSpec(squares("sum"), SGD(0.05, 0.5), value(0.1)), False),
        (STACKED, "left_padding", TrainingSpec(rows, Adam(0.02, 0.8, 0.9, 1e-3)), True),
        (STACKED, "nan_padding", TrainingSpec(squares("mean"), SGD(0.2), norm(0.1)), False),
        (STACKED_BI, "holes", TrainingSpec(squares("batch_mean"), Adam(0.05), value(0.01)), False),
        (STACKED_BI, "empty_row", TrainingSpec(mean, SGD(0.1, 0.9), norm(100.0)), False),
        (tokens, "lengths", TrainingSpec(mean, SGD(0.1, 0.9), norm(0.2)), True),
        (about, "full", TrainingSpec(rows, Adam(0.01), norm(0.01)), False),
    ]


def _rows_of_optimizers() -> list[Row]:
    """Every switch of every optimizer, and the schedules."""
    loss, norm = CrossEntropy("mean"), ClipByGlobalNorm(0.05)
    nesterov = SGD(0.1, 0.9, nesterov=True, weight_decay=0.1)
    slow_sgd = SGD(0.1, 0.5, weight_decay=0.5, decoupled=True)
    hat = Adam(0.01, epsilon=1e-2, epsilon_place="hat")
    root_mean = RMSprop(0.002, 0.9, 1e-3, 0.5, epsilon_place="inside")
    centred = RMSprop(0.002, 0.9, centred=True, weight_decay=0.1)
    from_one = Adagrad(0.1, initial_accumulator=0.1, weight_decay=0.5, decoupled=True)
    return [
        (SIMPLE, "lengths", TrainingSpec(loss, nesterov, schedule=StepDecay(2)), True),
        (BI, "full", TrainingSpec(loss, slow_sgd, schedule=WarmUp(2)), False),
        (STACKED, "full", TrainingSpec(loss, Adam(0.01, weight_decay=0.1), norm), False),
        (STACKED_BI, "lengths", TrainingSpec(loss, Adam(0.01, weight_decay=0.5, decoupled=True), norm), True),
        (BI, "lengths", TrainingSpec(MeanSquaredError("mean"), hat, schedule=Cosine(3)), False),
        (SIMPLE, "holes", TrainingSpec(loss, RMSprop(0.002), schedule=WarmUp(1, Cosine(4, 0.1))), False),
        (STACKED, "lengths", TrainingSpec(CrossEntropy("sum"), root_mean), True),
        (BI, "left_padding", TrainingSpec(MeanSquaredError("sum"), centred), False),
        (STACKED, "empty_row", TrainingSpec(loss, Adagrad(0.1)), True),
        (SIMPLE, "full", TrainingSpec(CrossEntropy("sum"), Adagrad(0.1, 1e-3, epsilon_place="inside")), True),
        (BI, "full", TrainingSpec(loss, from_one, ClipByValue(0.1)), False),
    ]


def pair_training_cases() -> list[TrainingCase]:
    """Encoders with decoders: of each optimizer's kind of state one, with uneven sequences, and states carried."""
    words = Embedding(4)
    decoder = ModelSpec("simple_rnn", 2, 3, embedding=words, head=STEPWISE)
    tokens = pair(ModelSpec("stacked_bi_rnn", 2, 2, 2, embedding=words), decoder, ("lengths", "lengths"))
    vectors = pair(ModelSpec("bi_rnn", 2, 2, bias="double", merge="sum"), STACKED, ("holes", "empty_row"))
    encoder = ModelSpec("stacked_rnn", 2, 2, 2, dropout=Dropout(0.4, 0.3, 0.5))
    dropped = pair(encoder, replace(STACKED, dropout=Dropout(0.4, 0.3, 0.5)), ("lengths", "empty_row"))
    return [
        TrainingCase(tokens, TrainingSpec(CrossEntropy("mean"), Adam(0.01), ClipByGlobalNorm(0.05))),
        TrainingCase(vectors, TrainingSpec(MeanSquaredError("batch_mean"), SGD(0.1, 0.9)), True, True),
        TrainingCase(dropped, TrainingSpec(CrossEntropy("mean"), SGD(0.1, 0.9)), True, True),
    ]


def quick_training_cases() -> list[TrainingCase]:
    """A few that still touch every kind of loss, reduction, optimizer, clip and schedule."""
    return covering(reversed(training_cases()), kinds)  # the last have most in them


def kinds(case: TrainingCase) -> set[tuple[str, str]]:
    """What a training case touches, by name."""
    training = case.training
    parts = {"loss": training.loss, "optimizer": training.optimizer, "clip": training.clip, "rate": training.schedule}
    values = {(name, type(part).__name__) for name, part in parts.items()}
    return values | {
        ("reduction", training.loss.reduction), ("carries", str(case.carries)), ("scale", str(case.case.scale)),
        ("accumulates", str(case.accumulates)), ("tokens", str(case.case.spec.embedding)),
        *(("dropout", kind) for kind in (case.case.spec.dropout or Dropout()).to_data(complete=False)),
    }  # fmt: skip


def label(rule: Optimizer) -> str:
    """The optimizer and what is switched on in it."""
    switches = {name: value for name, value in rule.to_data(complete=False).items() if name not in NUMBERS}
    words = [value if isinstance(value, str) else name for name, value in switches.items()]
    return "_".join([rule.KIND, *(words or ["plain"])])


def quantities(training_case: TrainingCase, ops: Exact) -> Named:
    """`loss` and `gradient norm` of each step, (S, steps); weights and the trainer's state after the last, by name."""
    case = training_case.case
    updates = [[(batch, _understood(case, batch)) for batch in batches] for batches in training_case.updates()]
    steps = list(descent(case.spec, training_case.training, case.weights, updates, ops))
    return steps[-1] | {name: side_by_side(step[name] for step in steps) for name in ("loss", "gradient norm")}


def _understood(case: AnyCase, batch: Batch) -> Inputs:
    given = replace(case.understood, inputs=np.asarray(batch.inputs))
    if batch.lengths is None and batch.mask is None:
        given = replace(given, mask=None)
    return replace(given, initial_states=None, context=None, source=None) if batch.continues else given
