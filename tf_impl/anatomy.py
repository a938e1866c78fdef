"""What a layer or model of Keras' is to the spec, and the layers and variables that it is made of."""

from . import importing as importing  # first: TensorFlow itself

# isort: split

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from ..spec.errors import UnsupportedError, WeightError, listed
from ..spec.found import FoundLayer, Hints
from ..spec.model import Embedding, Head, ModelSpec
from ..spec.parameters import DTYPES
from ..spec.stored import StoredTensor
from . import options
from .configuration import PASSING, Record, chain, layers
from .finding import found_layers
from .rebuilding import cells


@dataclass
class Anatomy:
    """The layers that a model is made of, and what they are to the spec.

    Attributes:
        model: the whole.
        spec: of it.
        embedding, head: layers, or None.
        recurrent: the recurrent layers from the bottom.
        variables: of each weight the Keras variable, and whether it is transposed.
    """

    model: Any
    spec: ModelSpec
    embedding: Any
    recurrent: list[Any]
    head: Any
    variables: dict[str, tuple[Any, bool]]

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return str(next(iter(self.variables.values()))[0].dtype)


def anatomy_of(model: Any) -> Anatomy:
    """Take a model apart. Raises UnsupportedError."""
    data = keras.saving.serialize_keras_object(model)
    items = [item for item in chain(data) if item["class_name"] not in ("InputLayer", *PASSING)]
    for item in items:
        if own := options.own_class(item):
            raise UnsupportedError(f"{options.name_of(item)}: {options.OWN_CODE.format(own)}")
    embedding = _layer(model, items.pop(0)) if items and items[0]["class_name"] == "Embedding" else None
    head = _layer(model, items.pop()) if len(items) > 1 and items[-1]["class_name"] == "Dense" else None
    if strange := [item["class_name"] for item in items if not options.RECURRENT.fullmatch(item["class_name"])]:
        raise UnsupportedError(
            f"{model.name}: expected recurrent layers alone between Embedding and Dense, got {strange}"
        )
    if not items:
        raise UnsupportedError(f"{model.name}: expected recurrent layers of which each reads the one below alone")
    recurrent = [_layer(model, item) for item in items]
    cells_of = {record.key: built_cells(layer) for record, layer in zip(layers(data).records, recurrent, strict=True)}
    found, variables = _found(layers(data).records, cells_of)
    assert found.network is not None
    spec = found.network
    weights = {name: (variables[part.name], part.transposed) for name, part in found.parts.items()}
    if embedding is not None:
        if embedding.mask_zero:
            raise UnsupportedError(
                f"{embedding.name}: expected mask_zero=False; give lengths or a mask with the inputs"
            )
        spec = replace(spec, embedding=Embedding(embedding.input_dim))
        weights = {"embedding.weight": (embedding.embeddings, False), **weights}
    if head is not None:
        if options.activation({"config": head.get_config()}) != "linear":
            raise UnsupportedError(f"{head.name}: expected a Dense layer without an activation at the end")
        reads = "steps" if recurrent[-1].return_sequences else "final"
        spec = replace(spec, head=Head(head.units, head.use_bias, reads))
        weights |= {"head.weight": (head.kernel, True)} | ({"head.bias": (head.bias, False)} if head.use_bias else {})
    return Anatomy(model, spec, embedding, recurrent, head, weights)


def _layer(model: Any, item: options.Data) -> Any:
    return model.get_layer(options.name_of(item)) if hasattr(model, "layers") else model


def built_cells(layer: Any) -> list[Any]:
    """The cells of both directions.

    Raises:
        UnsupportedError: they have no weights yet, or more than weights and options says what they compute.
        WeightError: they are not of float32 or float64.
    """
    found = cells(layer)
    if any("call" in vars(part) for part in (layer, *found)):
        raise UnsupportedError(f"{layer.name}: has a call of its own, whose code alone says what it does; remove it")
    if others := {cell.dtype_policy.name for cell in found} - set(DTYPES):
        raise WeightError(
            f"{layer.name}: expected a layer of {' or '.join(DTYPES)}, got {listed(others)}; make it with "
            "dtype='float32' and the same weights, which holds every number of float16 and bfloat16"
        )
    if not layer.built or not all(hasattr(cell, "kernel") for cell in found):
        raise UnsupportedError(f"{layer.name}: has no weights yet; call it once, or build it with its input's shape")
    return found


def _found(records: list[Record], cells_of: Mapping[str, list[Any]]) -> tuple[FoundLayer, dict[str, Any]]:
    """The one layer or stack that the layers are, and their variables by the paths of Keras' files."""
    variables: dict[str, Any] = {}
    for record in records:
        for place, cell in zip(record.cells, cells_of[record.key], strict=True):
            values = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
            variables |= {f"{place.path}/vars/{number}": value for number, value in enumerate(values)}
    tensors = {n: StoredTensor(Path(), 0, str(value.dtype), tuple(value.shape)) for n, value in variables.items()}
    layers, _ = found_layers(tensors, Hints(), records)
    if refused := [layer.refusal for layer in layers if layer.refusal]:
        raise UnsupportedError(f"a Keras layer {layers[0].path!r}: {refused[0]}" if layers[0].path else refused[0])
    if len(records) > 1 and layers[-1].path != f"{layers[0].path}..{layers[len(records) - 1].path}":
        names = ", ".join(layer.path for layer in layers[: len(records)])
        raise UnsupportedError(f"{names}: expected one stack: the same units, activation, bias and merging, all steps")
    return layers[-1], variables
