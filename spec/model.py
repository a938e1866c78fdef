"""`ModelSpec`: what a model is, in any framework (SPEC.md, 1 to 9)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import yaml

from .data import VERSION, Described, check_choice, check_flag, check_size, check_version
from .definitions import BIASES, Cell, Variant, cell_names, load_cell, load_variant, variant_names
from .dropout import Dropout
from .errors import SpecError
from .initializers import INITIALIZERS, Initializer

MERGES = ("concat", "sum", "average", "multiply")
MAXIMUM_LAYERS = 10_000  # so that a spec in somebody's file cannot ask for names without end
NONLINEARITIES = ("tanh", "relu", "sigmoid", "identity")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which reads 1e-3 as a number too, as JSON and YAML 1.2 do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Versioned(Described):
    """Base of what describes a whole model: as JSON and YAML it carries the spec's version."""

    def to_json(self) -> str:
        """Sorted JSON with the spec version; `from_json` gives back an equal spec."""
        return json.dumps({"version": VERSION, **self.to_data()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that `to_json` wrote, or a person in its form. Raises SpecError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"model spec: not JSON: {error}") from error
        return cls.from_versioned(data)

    def to_yaml(self) -> str:
        """YAML with the spec version; `from_yaml` gives back an equal spec."""
        return yaml.safe_dump({"version": VERSION, **self.to_data()}, sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The spec that `to_yaml` wrote, or a person in its form; JSON is YAML too. Raises SpecError."""
        return cls.from_versioned(read_yaml(text))

    @classmethod
    def from_versioned(cls, data: object) -> Self:
        """The spec of plain data that has a key `version`. Raises SpecError."""
        if not isinstance(data, dict):
            raise SpecError(f"model spec: expected a mapping of names to values, got {type(data).__name__}")
        check_version(data.get("version"), "model spec")
        return cls.from_data({key: value for key, value in data.items() if key != "version"})


def read_yaml(text: str) -> object:
    """Plain data out of YAML. Raises SpecError."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"model spec: not YAML: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Embedding(Described):
    """A table of `vocabulary_size` rows; inputs are then tokens, and the model's `input_size` is a row's width."""

    vocabulary_size: int

    def __post_init__(self) -> None:
        check_size("embedding vocabulary_size", self.vocabulary_size)


@dataclass(frozen=True)
class Head(Described):
    """An affine map to `size` scores, of the outputs of every step or of the top layer's merged final states."""

    size: int
    bias: bool = True
    reads: str = "steps"

    def __post_init__(self) -> None:
        check_size("head size", self.size)
        check_flag("head bias", self.bias)
        check_choice("head reads", self.reads, ("steps", "final"))


@dataclass(frozen=True)
class Context(Described):
    """An affine map from a vector of `size` numbers to the initial state of all layers and directions."""

    size: int

    def __post_init__(self) -> None:
        check_size("context size", self.size)


@dataclass(frozen=True)
class ModelSpec(Versioned):
    """A recurrent network, described once for all frameworks.

    Args:
        variant: `simple_rnn`, `bi_rnn`, `stacked_rnn` or `stacked_bi_rnn`.
        input_size: I, the numbers in an input step; with an embedding, the width of its rows.
        hidden_size: H, units of each layer and direction.
        num_layers: L; 1 where the variant has one layer, at least 2 where it is stacked.
        nonlinearity: f, `tanh`, `relu`, `sigmoid` or `identity`.
        bias: `none`, `single` (as Keras) or `double` (as torch and ONNX).
        merge: of the two directions' outputs: `concat`, `sum`, `average` or `multiply`.
        cell: what happens in a step; a file of that name in `spec/cells` defines it.
        initializer: a name from `INITIALIZERS`, or an `Initializer`.
        dropout: what updates drop, or None; a `Dropout` whose rates are all 0 becomes None.
        embedding, head, context: the parts around the core, or None.

    Raises:
        SpecError: a value is not of its range, or does not go with another.
    """

    variant: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    nonlinearity: str = "tanh"
    bias: str = "single"
    merge: str = "concat"
    cell: str = field(default="rnn", kw_only=True)
    initializer: Initializer = field(default=INITIALIZERS["torch"], kw_only=True)
    dropout: Dropout | None = field(default=None, kw_only=True)
    embedding: Embedding | None = field(default=None, kw_only=True)
    head: Head | None = field(default=None, kw_only=True)
    context: Context | None = field(default=None, kw_only=True)

    ADDED: ClassVar[tuple[str, ...]] = ("dropout",)
    PARTS: ClassVar[Mapping[str, type[Described]]] = {
        "initializer": Initializer, "dropout": Dropout, "embedding": Embedding, "head": Head, "context": Context,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, tuple(variant_names()))
        check_choice("cell", self.cell, tuple(cell_names()))
        load_cell(self.cell)
        for name in ("input_size", "hidden_size", "num_layers"):
            check_size(name, getattr(self, name))
        check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        check_choice("bias", self.bias, BIASES)
        check_choice("merge", self.merge, MERGES)
        self._check_layers(load_variant(self.variant))
        if self.num_directions == 1 and self.merge != "concat":
            raise SpecError(f"merge {self.merge!r}: {self.variant} has one direction, nothing to merge; leave 'concat'")
        if isinstance(self.initializer, str):
            check_choice("initializer", self.initializer, tuple(INITIALIZERS))
            object.__setattr__(self, "initializer", INITIALIZERS[self.initializer])
        for name, part in self.PARTS.items():
            value, none = getattr(self, name), "" if name == "initializer" else " or None"
            if not isinstance(value, part) and not (none and value is None):
                raise SpecError(f"{name}: expected {part.__name__}(...){none}, got {value!r}")
        self._check_dropout()

    def _check_layers(self, variant: Variant) -> None:
        low, high = variant.minimum_layers, variant.maximum_layers
        if self.num_layers < low or self.num_layers > (high or MAXIMUM_LAYERS):
            wanted = f"{low}" if high else f"at least {low}" if self.num_layers < low else f"at most {MAXIMUM_LAYERS:,}"
            other = "a variant of one layer" if self.num_layers < low else "a stacked variant"
            raise SpecError(
                f"num_layers: {self.variant} has {wanted} layers, got {self.num_layers}; change it or take {other}"
            )

    def _check_dropout(self) -> None:
        if self.dropout and self.dropout.between_layers and self.num_layers == 1:
            raise SpecError(f"dropout between_layers: {self.variant} has one layer, nothing between; leave it 0")
        if self.dropout == Dropout():
            object.__setattr__(self, "dropout", None)

    @property
    def cell_definition(self) -> Cell:
        """The cell, with its states, gates and equations."""
        return load_cell(self.cell)

    @property
    def directions(self) -> tuple[str, ...]:
        """`("forward",)` or `("forward", "backward")`."""
        return load_variant(self.variant).directions

    @property
    def num_directions(self) -> int:
        """D, 1 or 2."""
        return len(self.directions)

    @property
    def output_size(self) -> int:
        """Numbers in an output step: D*H with concat, else H."""
        return self.num_directions * self.hidden_size if self.merge == "concat" else self.hidden_size

    def layer_input_size(self, layer: int) -> int:
        """I_l: the input size for layer 0, the output size above."""
        return self.input_size if layer == 0 else self.output_size

    @property
    def title(self) -> str:
        """In a few words, for messages."""
        return f"{self.variant} with bias '{self.bias}'"

    @property
    def is_core(self) -> bool:
        """True when there is no embedding, head or context: the model is the recurrent core alone."""
        return self.embedding is None and self.head is None and self.context is None

    def differing(self, other: "ModelSpec") -> list[str]:
        """The fields in which two specs differ, the initializer aside."""
        names = [field.name for field in fields(self) if field.name != "initializer"]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """(L*D, B, H), the shape of each state; index l*D + d."""
        return self.num_layers * self.num_directions, batch, self.hidden_size

    def check_streams(self, *, state_given: bool) -> None:
        """Raises SpecError unless the model can run one time step after the other from there."""
        if self.num_directions == 2:
            raise SpecError(
                f"step: {self.variant} reads backward as well, from the last step on; run the whole sequence"
            )
        if self.head and self.head.reads == "final":
            raise SpecError(
                "step: the head reads the final state, which streaming does not know; run the whole sequence"
            )
        if self.context and not state_given:
            raise SpecError("step: a model with a context does not start from zeros; start from initial_state(context)")
