"""A model in the form that a file can hold: two biases where there is one, one where there are two."""

from collections.abc import Iterator
from dataclasses import replace

from ..spec.backend import Contents
from ..spec.checkpoint import described
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.parameters import parameters
from ..spec.parts import LazyWeights, Part, StoredWeights
from ..spec.stored import Array
from ..spec.streaming import Rows, rows_of


class OtherBiases(LazyWeights):
    """Weights of a model with one bias as those of a model with two, the second of which is 0; or two as their sum."""

    def __init__(self, contents: Contents, bias: str) -> None:
        self._weights, self._sizes = contents.weights, described(contents)
        self._names = [parameter.name for parameter in parameters(replace(contents.network, bias=bias))]

    def __getitem__(self, name: str) -> Array:
        if name in self._sizes:
            return self._weights[name]
        first, *second = (self._weights[other] for other in self.origins(name))
        if second:
            return first + second[0]
        return first * 0 if name.endswith(".recurrent_bias") else first

    def rows(self, name: str, *, transposed: bool = False) -> Rows:
        if name in self._sizes:
            return rows_of(self._weights, name, transposed=transposed)
        return super().rows(name, transposed=transposed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def described(self, spec: AnySpec) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: self._sizes[self.origins(name)[0]] for name in self._names}

    def origins(self, name: str) -> list[str]:
        """The names of the weights that a weight comes from: itself, the one bias, or the two."""
        direction = name.rpartition(".")[0]
        others = [f"{direction}.{kind}" for kind in ("bias", "input_bias", "recurrent_bias")]
        return [name] if name in self._sizes else [other for other in others if other in self._sizes]


def adapted(contents: Contents, biases: tuple[str, ...], *, plain: bool) -> tuple[Contents, list[str]]:
    """The same model with one of these kinds of bias, for a framework's own layers if plain, and what was changed."""
    kept, notes = _with_bias(contents, biases)
    if plain and contents.spec.dropout:
        rates = ", ".join(f"{kind} {rate:g}" for kind, rate in contents.spec.dropout.to_data(complete=False).items())
        notes.append(
            f"dropout ({rates}) is not in the layers: the same results; set it in them before training goes on"
        )
    return kept, notes


def _with_bias(contents: Contents, biases: tuple[str, ...]) -> tuple[Contents, list[str]]:
    spec = contents.spec
    if isinstance(spec, EncoderDecoderSpec) or spec.bias in biases:
        return contents, []
    if spec.bias == "double" and "single" in biases:
        note = (
            "input_bias and recurrent_bias were summed into bias: the same results, but training goes on "
            "differently, as two biases make steps twice as large"
        )
        return Contents(replace(spec, bias="single"), OtherBiases(contents, "single"), contents.provenance), [note]
    if spec.bias == "single" and "double" in biases:
        note = (
            "bias became input_bias, and recurrent_bias is 0: the same results; freeze recurrent_bias (bias_hh) "
            "if training is to go on as with one bias"
        )
        return Contents(replace(spec, bias="double"), OtherBiases(contents, "double"), contents.provenance), [note]
    return contents, []


def origins(given: Contents, kept: Contents, name: str) -> tuple[list[Part], str]:
    """The parts of a file that a weight of the adapted model comes from, and its `change`: `sum`, `0` or none."""
    assert isinstance(given.weights, StoredWeights)
    if not isinstance(kept.weights, OtherBiases) or name in given.weights.parts:
        return [given.weights.parts[name]], ""
    parts = [given.weights.parts[other] for other in kept.weights.origins(name)]
    if len(parts) == 2:
        return parts, "sum"
    return ([], "0") if name.endswith(".recurrent_bias") else (parts, "")
