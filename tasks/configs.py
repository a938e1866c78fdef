"""What a training config may hold: one dataclass a config group, from which Hydra takes keys, types and common values.

The files in `conf/` say what an option changes. A task suggests sizes and rates, and the other groups refer to
them; so every one of them can be overridden in its own place. The schemas are stored under the group
`hydra/rnnzoo`, as groups outside `hydra` are offered as choices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, SI, OmegaConf

from ..spec.backend import BUILT_IN, backend_names
from ..spec.errors import SpecError, listed
from .task import goal_of

SCHEMAS = "hydra/rnnzoo"


@dataclass
class LearningRates:
    """A rate for each optimizer; a task may leave those out that have a value here."""

    adam: float = MISSING
    sgd: float = MISSING
    rmsprop: float = 0.001
    adagrad: float = 0.05


@dataclass
class Suggested:
    """What a task suggests to the other groups."""

    hidden_size: int = MISSING
    batch_size: int = MISSING
    epochs: int = MISSING
    clip: float | None = MISSING
    initializer: str = "torch"
    learning_rate: LearningRates = field(default_factory=LearningRates)


@dataclass
class DigitsConfig:
    """`data`: an .npz file of your own with the arrays inputs, targets and, where they differ, lengths."""

    name: str = "digits"
    data: str | None = None
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class CharLMConfig:
    """`text`: a UTF-8 file of your own, else Python's help topics; `embedding_size`: null for one-hot inputs."""

    name: str = "char_lm"
    text: str | None = None
    window: int = 64
    embedding_size: int | None = 64
    reduction: str = "mean"
    order: int = 3
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class AddingConfig:
    """`length`: steps in a sequence."""

    name: str = "adding"
    length: int = 50
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class CopyConfig:
    """`length`: symbols; `delay`: steps from the last of them to their copy; `alphabet_size`: different ones."""

    name: str = "copy"
    length: int = 5
    delay: int = 5
    alphabet_size: int = 8
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class ForecastConfig:
    """`series`: sunspots or co2; `data`, `column`: a CSV file of your own; `season`: of the baseline."""

    name: str = "forecast"
    series: str = "sunspots"
    data: str | None = None
    column: str | None = None
    window: int = 24
    season: int | None = None
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class TaggingConfig:
    """`data`: a text file of your own, a word and its tag a line, an empty line between sentences."""

    name: str = "tagging"
    data: str | None = None
    embedding_size: int = 16
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class OnuSleepConfig:
    """`length`: intervals in a training sequence; `delay_price`: cost of a mean delay of one interval."""

    name: str = "onu_sleep"
    length: int = 60
    delay_price: float = 1.0
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class CaptioningConfig:
    """`embedding_size`: width of a word's vector."""

    name: str = "captioning"
    embedding_size: int = 16
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class DropoutConfig:
    """The rates of `spec.Dropout`: how often an update drops a unit, for each kind."""

    between_layers: float = 0.0
    inputs: float = 0.0
    state: float = 0.0


@dataclass
class TranslateConfig:
    """`embedding_size`: width of a character's vector; `decoder`: its variant, else the model's reading forward."""

    name: str = "translate"
    embedding_size: int = 32
    decoder: str | None = None
    suggested: Suggested = field(default_factory=Suggested)


@dataclass
class ModelConfig:
    """The fields of a `ModelSpec` that a task leaves open."""

    variant: str = MISSING
    hidden_size: int = SI("${task.suggested.hidden_size}")
    num_layers: int = MISSING
    nonlinearity: str = "tanh"
    bias: str = "single"
    merge: str = "concat"
    cell: str = "rnn"
    initializer: str = SI("${task.suggested.initializer}")
    dropout: DropoutConfig | None = field(default_factory=DropoutConfig)


@dataclass
class BackendConfig:
    """`numpy`, `torch`, `tf`, an installed one's name, or `package.module:OBJECT`."""

    name: str = MISSING


@dataclass
class AdamConfig:
    """The fields of `spec.optimizers.Adam`."""

    kind: str = "adam"
    learning_rate: float = MISSING
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_place: str = "outside"
    weight_decay: float = 0.0
    decoupled: bool = False


@dataclass
class SGDConfig:
    """The fields of `spec.optimizers.SGD`."""

    kind: str = "sgd"
    learning_rate: float = MISSING
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled: bool = False


@dataclass
class RMSpropConfig:
    """The fields of `spec.optimizers.RMSprop`."""

    kind: str = "rmsprop"
    learning_rate: float = MISSING
    alpha: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centred: bool = False
    epsilon_place: str = "outside"
    weight_decay: float = 0.0
    decoupled: bool = False


@dataclass
class AdagradConfig:
    """The fields of `spec.optimizers.Adagrad`."""

    kind: str = "adagrad"
    learning_rate: float = MISSING
    epsilon: float = 1e-10
    initial_accumulator: float = 0.0
    epsilon_place: str = "outside"
    weight_decay: float = 0.0
    decoupled: bool = False


@dataclass
class TrainerConfig:
    """How long, on how much at once, and how exactly.

    Attributes:
        epochs: passes over the training data; not read where `steps` is given.
        steps: updates, or None.
        clip: largest gradient; None for no clipping.
        clip_kind: `global_norm` or `value`.
        seed: of the initial weights, of the order of the batches and of dropout; a task's split is always the same.
        accumulate: batches to an update; the loss is divided by the entries of all of them.
        evaluate_every: updates between two evaluations; None for one at the end of each epoch.
        checkpoint_every: updates between two checkpoints; None for one with each evaluation.
        recompute: states are computed again for the gradients, in place of being kept.
        progress: a progress bar where standard error is a terminal.
        tensorboard: event files for TensorBoard too, in the run's folder.
    """

    epochs: int | None = MISSING
    steps: int | None = None
    batch_size: int = MISSING
    accumulate: int = 1
    clip: float | None = None
    clip_kind: str = "global_norm"
    seed: int = 0
    dtype: str = "float32"
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    recompute: bool = False
    progress: bool = True
    tensorboard: bool = False


@dataclass
class Config:
    """A whole training config. `task` and `optimizer` have one of the types above; `schedule` is None for none.

    Attributes:
        resume: a run's folder or a checkpoint to go on from; what it fixes comes from it.
        reaches: of an experiment, a value of the task's metric that it is published to reach, better than the baseline.
        misses: a value that it is known not to reach.
    """

    task: Any = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    optimizer: Any = MISSING
    schedule: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    resume: str | None = None
    reaches: float | None = None
    misses: float | None = None


def check_keys(settings: Mapping[str, Any]) -> None:
    """Raises SpecError for a key that nothing reads; Hydra lets `+key=value` add any."""
    groups = {"": Config, "model": ModelConfig, "backend": BackendConfig, "trainer": TrainerConfig}
    for group, schema in groups.items():
        known = {field.name for field in fields(schema)}
        if unknown := set(settings[group] if group else settings) - known:
            raise SpecError(f"{group or 'config'}: unknown key {listed(unknown)}; known are {listed(known)}")


def register(backends: list[str]) -> None:
    """Give Hydra the schemas, `${goal:TASK}`, and an option of the group `backend` for each that has no file there."""
    OmegaConf.register_new_resolver("goal", goal_of, replace=True)
    store = ConfigStore.instance()
    schemas = {
        "config": Config, "digits": DigitsConfig, "char_lm": CharLMConfig, "adding": AddingConfig, "copy": CopyConfig,
        "forecast": ForecastConfig, "tagging": TaggingConfig, "onu_sleep": OnuSleepConfig,
        "captioning": CaptioningConfig, "translate": TranslateConfig,
        "adam": AdamConfig, "sgd": SGDConfig, "rmsprop": RMSpropConfig, "adagrad": AdagradConfig,
    }  # fmt: skip
    for name, schema in schemas.items():
        store.store(group=SCHEMAS, name=name, node=schema)
    for name in {*backend_names(), *backends} - set(BUILT_IN):
        store.store(group="backend", name=name, node={"name": name})
