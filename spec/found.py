"""What a reader finds in a model file: recurrent layers, and what else there is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .encoder_decoder import AnySpec
from .errors import FileError
from .model import ModelSpec
from .parts import Part
from .stored import StoredTensor

MAXIMUM_FOUND = 2**11  # layers or cells in a file


@dataclass(frozen=True)
class Original:
    """A layer in the words of its file, for its framework to run: what a reader made of it has no part in this.

    Attributes:
        tensors: by the names that the layer's framework has for them.
        told: what else the file says of the layer, as JSON can hold it.
    """

    tensors: Mapping[str, StoredTensor]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundLayer:
    """A recurrent layer (or a stack of them, or a whole model) that a file holds.

    Attributes:
        path: its name in the file, such as `encoder.rnn`; empty where the file is the layer.
        kind: what its framework calls it, such as `torch.nn.RNN` or `Bidirectional(SimpleRNN)`.
        spec: what it is; None where it is refused.
        parts: where each weight of the spec comes from.
        assumed: fields of the spec that the file does not tell.
        given: those of them that the user told.
        notes: what of it is left behind, and what that means.
        refusal: why it cannot be converted; None where it can.
        original: what the file itself says; None where that is weights alone.
    """

    path: str
    kind: str
    spec: AnySpec | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    original: Original | None = None

    @property
    def network(self) -> ModelSpec | None:
        """The spec where it is one network, and neither refused nor an encoder with a decoder."""
        return self.spec if isinstance(self.spec, ModelSpec) else None


@dataclass(frozen=True)
class FoundFile:
    """What a reader found in a file.

    Attributes:
        format: in words, such as `torch checkpoint`.
        layers: in the order of the file.
        rest: tensors that belong to no layer, by name.
        facts: what else the file says of itself: its writer's version, the epoch.
        spec: that a file of ours carries.
        provenance: the record of a file of ours; None for any other.
    """

    format: str
    layers: tuple[FoundLayer, ...]
    rest: Mapping[str, StoredTensor] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    spec: AnySpec | None = None
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Hints:
    """What the user says of a file.

    Attributes:
        spec: of the model, for a file that carries none.
        nonlinearity: where the file does not tell; None for tanh.
    """

    spec: AnySpec | None = None
    nonlinearity: str | None = None

    def told(self, layer: FoundLayer) -> FoundLayer:
        """The layer with what the user told no longer among what is assumed."""
        given = tuple(name for name in layer.assumed if self.spec or (name == "nonlinearity" and self.nonlinearity))
        return replace(layer, given=given, assumed=tuple(name for name in layer.assumed if name not in given))


def check_count(layers: int) -> None:
    """Raises FileError where a file has more recurrent layers or cells than any honest one."""
    if layers > MAXIMUM_FOUND:
        raise FileError(f"expected at most {MAXIMUM_FOUND:,} recurrent layers in a file, got {layers:,}")
