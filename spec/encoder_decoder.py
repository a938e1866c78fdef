"""`EncoderDecoderSpec`: two networks, of which the second starts from the final state of the first (SPEC.md, 8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .data import Described
from .definitions import Cell
from .dropout import Dropout
from .errors import SpecError
from .model import Context, Embedding, Head, ModelSpec, Versioned, read_yaml


class Source(NamedTuple):
    """What an encoder reads; it is the context of a run.

    Attributes:
        inputs: (B, S, I), or tokens (B, S).
        lengths: (B,), where they differ.
        mask: (B, S) bool, instead of lengths.
    """

    inputs: Any
    lengths: Any = None
    mask: Any = None


@dataclass(frozen=True)
class EncoderDecoderSpec(Versioned):
    """An encoder that reads a source, and a decoder whose context is what it has read.

        c[(l*D + d)*H + i] = final state of unit i, layer l, direction d of the encoder
        h_0 of the decoder = context.weight c + context.bias

    c (L*D*H,), with L, D and H of the encoder. Both run over sequences of their own length. The parameters are those
    of both, with the prefixes `encoder.` and `decoder.`. A run is one of the decoder, whose inputs, head and states are
    meant wherever those of the model are. Others hand the states over as they are (Sutskever 2014; weight identity,
    bias 0), or those of the top layer alone.

    Args:
        encoder: without head and context.
        decoder: with a context of the size of the encoder's final state.

    Raises:
        SpecError: a part is missing, or does not go with the other.
    """

    encoder: ModelSpec
    decoder: ModelSpec

    PARTS: ClassVar[Mapping[str, type[Described]]] = {"encoder": ModelSpec, "decoder": ModelSpec}

    def __post_init__(self) -> None:
        for name, part in self.sides.items():
            if not isinstance(part, ModelSpec):
                raise SpecError(f"{name}: expected ModelSpec(...), got {part!r}")
        if extra := [name for name in ("head", "context") if getattr(self.encoder, name)]:
            raise SpecError(f"encoder: expected no {extra[0]}, as nothing reads or gives one; leave it None")
        size, found = final_state_size(self.encoder), self.decoder.context
        if found is None or found.size != size:
            layers, directions, units = self.encoder.num_layers, self.encoder.num_directions, self.encoder.hidden_size
            raise SpecError(
                f"decoder: expected context=Context({size}), for the encoder's final state of {layers} layers, "
                f"{directions} directions and {units} units, got {found!r}"
            )

    @property
    def sides(self) -> dict[str, ModelSpec]:
        """Both parts by name."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    @property
    def title(self) -> str:
        """In a few words, for messages."""
        return f"encoder ({self.encoder.title}) and decoder ({self.decoder.title})"

    @property
    def is_core(self) -> bool:
        """False."""
        return False

    @property
    def variant(self) -> str:
        """The encoder's, for what names a model by one."""
        return self.encoder.variant

    @property
    def dropout(self) -> Dropout | None:
        """The decoder's, else the encoder's; None where neither drops."""
        return self.decoder.dropout or self.encoder.dropout

    @property
    def cell_definition(self) -> Cell:
        """The decoder's."""
        return self.decoder.cell_definition

    @property
    def num_directions(self) -> int:
        """The decoder's."""
        return self.decoder.num_directions

    @property
    def input_size(self) -> int:
        """The decoder's."""
        return self.decoder.input_size

    @property
    def output_size(self) -> int:
        """The decoder's."""
        return self.decoder.output_size

    @property
    def embedding(self) -> Embedding | None:
        """The decoder's."""
        return self.decoder.embedding

    @property
    def head(self) -> Head | None:
        """The decoder's."""
        return self.decoder.head

    @property
    def context(self) -> Context | None:
        """The decoder's."""
        return self.decoder.context

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """The decoder's."""
        return self.decoder.state_shape(batch)

    def check_streams(self, *, state_given: bool) -> None:
        """Raises SpecError unless the decoder can run one time step after the other from there."""
        self.decoder.check_streams(state_given=state_given)


AnySpec = ModelSpec | EncoderDecoderSpec


def networks(spec: AnySpec) -> tuple[ModelSpec, ...]:
    """The encoder and the decoder, or the only one."""
    return (spec,) if isinstance(spec, ModelSpec) else (spec.encoder, spec.decoder)


def final_state_size(encoder: ModelSpec) -> int:
    """L*D*H: the numbers in the final state of a row."""
    layers, _, units = encoder.state_shape(1)
    return layers * units


def differing_fields(a: AnySpec, b: AnySpec) -> list[str]:
    """The fields that are not the same, but for how weights began; of an encoder such as `encoder.hidden_size`."""
    if isinstance(a, ModelSpec) and isinstance(b, ModelSpec):
        return a.differing(b)
    if isinstance(a, ModelSpec) or isinstance(b, ModelSpec):
        return ["encoder", "decoder"]
    return [f"{side}.{name}" for side, part in a.sides.items() for name in part.differing(b.sides[side])]


def spec_from_data(data: object) -> AnySpec:
    """The spec of either kind that plain data stand for. Raises SpecError."""
    return _kind(data).from_data(data)


def spec_from_text(text: str) -> AnySpec:
    """The spec of either kind in YAML or JSON, with its version. Raises SpecError."""
    data = read_yaml(text)
    return _kind(data).from_versioned(data)


def _kind(data: object) -> type[AnySpec]:
    both = isinstance(data, Mapping) and {"encoder", "decoder"} & set(data)
    return EncoderDecoderSpec if both else ModelSpec
