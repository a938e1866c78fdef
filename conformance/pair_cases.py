"""Cases of an encoder with its decoder: a case of each, whose sequences have lengths of their own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

from ..spec.data import Described
from ..spec.encoder_decoder import EncoderDecoderSpec, Source, final_state_size
from ..spec.errors import SpecError
from ..spec.inputs import Cotangents, Inputs
from ..spec.model import Context, Embedding, Head, ModelSpec
from ..spec.parameters import Weights
from .cases import Array, Case


@dataclass(frozen=True)
class PairCase(Described):
    """A case of the encoder, and one of the decoder, for as many rows; what the encoder gives is the decoder's context.

    Raises:
        SpecError: the two do not go together, or the encoder's case has an initial state.
    """

    encoder: Case
    decoder: Case

    KIND: ClassVar[str] = "pair_case"
    PARTS: ClassVar[Mapping[str, type[Described]]] = {"encoder": Case, "decoder": Case}

    def __post_init__(self) -> None:
        if self.encoder.initial or self.encoder.rows != self.decoder.rows:
            raise SpecError("pair case: expected an encoder without an initial state, and as many rows in the decoder")
        EncoderDecoderSpec(self.encoder.spec, self.decoder.spec)

    @property
    def spec(self) -> EncoderDecoderSpec:
        """Of both."""
        return EncoderDecoderSpec(self.encoder.spec, self.decoder.spec)

    @property
    def name(self) -> str:
        """A name that tells the case apart from all others."""
        return f"encoder-{self.encoder.name}-decoder-{self.decoder.name}"

    @property
    def clause(self) -> str:
        """The clause of SPEC.md that the case is there for."""
        return "8.4 encoder and decoder"

    @property
    def rows(self) -> int:
        """B of both."""
        return self.decoder.rows

    @property
    def steps(self) -> int:
        """T of the decoder."""
        return self.decoder.steps

    @property
    def scale(self) -> float:
        """The decoder's."""
        return self.decoder.scale

    @property
    def kinds_of_sequences(self) -> tuple[str, ...]:
        """Of both."""
        return self.encoder.sequences, self.decoder.sequences

    @property
    def takes(self) -> set[str]:
        """The optional arrays of its run, and of its source."""
        return self.encoder.takes | self.decoder.takes

    def with_bits(self, bits: int) -> "PairCase":
        """The same case with numbers of so many bits."""
        return PairCase(self.encoder.with_bits(bits), self.decoder.with_bits(bits))

    @cached_property
    def weights(self) -> Weights:
        """float64 weights of both, every number random."""
        sides = {"encoder": self.encoder, "decoder": self.decoder}
        return {f"{side}.{name}": array for side, case in sides.items() for name, array in case.weights.items()}

    @property
    def inputs(self) -> Array:
        """Of the decoder."""
        return self.decoder.inputs

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of a backend's `run`, apart from `inputs`."""
        return self._with_source(self.decoder.arguments, self.encoder.inputs)

    def with_other_padding(self) -> dict[str, Any]:
        """All arguments, with something else in the padding of both."""
        encoder = self.encoder.with_other_padding()
        return self._with_source(self.decoder.with_other_padding(), encoder["inputs"])

    @property
    def understood(self) -> Inputs:
        """What the arguments mean, for the oracle."""
        given = self.decoder.understood
        return given if self.decoder.initial else replace(given, context=None, source=self.encoder.understood)

    @property
    def cotangents(self) -> Cotangents:
        """Of what the decoder gives."""
        return self.decoder.cotangents

    def numbers(self, name: str, *shape: int) -> Array:
        """Random numbers in [-1, 1)."""
        return self.decoder.numbers(name, *shape)

    def _with_source(self, arguments: dict[str, Any], inputs: Array) -> dict[str, Any]:
        if self.decoder.initial:
            return arguments
        return {**arguments, "context": Source(inputs, **self.encoder.arguments)}


AnyCase = Case | PairCase


def pair(encoder: ModelSpec, decoder: ModelSpec, sequences: tuple[str, str], initial: bool = False) -> PairCase:
    """A case of both for 4 rows, with 5 steps in the source and 3 for the decoder, which gets the context it needs."""
    fitting = replace(decoder, context=Context(final_state_size(encoder)))
    return PairCase(Case(encoder, 4, 5, sequences[0], seed=2), Case(fitting, 4, 3, sequences[1], initial))


@cache
def pair_cases() -> tuple[PairCase, ...]:
    """An encoder of each variant, tokens and vectors, sequences of every kind on both sides."""
    return tuple(_pair_cases())


def _pair_cases() -> Iterator[PairCase]:
    head, words = Head(3), Embedding(4)
    simple = ModelSpec("simple_rnn", 2, 3, head=head)
    stacked = ModelSpec("stacked_rnn", 2, 2, 2, "sigmoid", "double", embedding=words, head=head)
    both = ModelSpec("bi_rnn", 3, 2, merge="sum", head=Head(2, reads="final"))
    yield pair(
        ModelSpec("stacked_bi_rnn", 2, 2, 2, bias="double", embedding=Embedding(5)), stacked, ("lengths", "lengths")
    )
    yield pair(ModelSpec("bi_rnn", 4, 2, merge="average"), simple, ("holes", "nan_padding"))
    yield pair(ModelSpec("simple_rnn", 2, 3), both, ("left_padding", "full"))
    yield pair(ModelSpec("stacked_rnn", 3, 2, 2, "sigmoid"), simple, ("nan_padding", "empty_row"))
    yield pair(ModelSpec("simple_rnn", 2, 3, embedding=words), stacked, ("empty_row", "holes"))
    yield pair(ModelSpec("simple_rnn", 2, 3, bias="none"), ModelSpec("simple_rnn", 2, 2), ("full", "left_padding"))
    yield pair(ModelSpec("bi_rnn", 2, 2, merge="multiply"), simple, ("lengths", "lengths"), initial=True)


def quick_pair_cases() -> list[PairCase]:
    """Those that have most in them."""
    return list(pair_cases()[:2])
