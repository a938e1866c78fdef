"""The JSON that Keras builds a model from: Keras' standard layers, or this package's `SequenceModel`.

It has the options that differ from Keras' own, and initial values of 0, as the weights are set right after.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.model import ModelSpec
from .options import ACTIVATIONS, MERGES, snake_case

Data = dict[str, Any]
NAMES = {meaning: name for names in (ACTIVATIONS, MERGES) for name, meaning in names.items()}


def own_model(spec: AnySpec, dtype: str) -> Data:
    """A `SequenceModel` or an `EncoderDecoder`; to be loaded where this package is."""
    two = isinstance(spec, EncoderDecoderSpec)
    module, kind = ("encoder_decoder", "EncoderDecoder") if two else ("model", "SequenceModel")
    config = {"name": snake_case(kind), "spec": json.loads(spec.to_json()), "seed": 0, "dtype": dtype}
    return {
        "module": f"rnnzoo.tf_impl.{module}", "class_name": kind, "config": config, "registered_name": f"rnnzoo>{kind}",
    }  # fmt: skip


def plain_model(spec: ModelSpec, dtype: str, prefix: str = "") -> Data:
    """A functional model of standard layers, from `inputs` to the scores, or the outputs where there is no head."""
    layers = list(_layers(spec, dtype, prefix))
    for below, layer in pairwise(layers):
        width = [] if below["class_name"] == "InputLayer" and spec.embedding else [_width(spec, below)]
        history = {"shape": [None, None, *width], "dtype": dtype, "keras_history": [below["name"], 0, 0]}
        tensor = {"class_name": "__keras_tensor__", "config": history}
        layer["inbound_nodes"] = [{"args": [tensor], "kwargs": {}}]
    ends = {"input_layers": [layers[0]["name"], 0, 0], "output_layers": [layers[-1]["name"], 0, 0]}
    return {
        "module": "keras.src.models.functional", "class_name": "Functional",
        "config": {"name": f"{prefix}model", "trainable": True, "layers": layers, **ends},
        "registered_name": "Functional",
    }  # fmt: skip


def _width(spec: ModelSpec, layer: Data) -> int:
    return spec.input_size if layer["class_name"] in ("InputLayer", "Embedding") else spec.output_size


def _layers(spec: ModelSpec, dtype: str, prefix: str) -> Iterator[Data]:
    def layer(kind: str, name: str, **options: Any) -> Data:
        return _object(kind, name=prefix + name, **{"dtype": dtype, **options}) | {
            "name": prefix + name,
            "inbound_nodes": [],
        }

    shape = [None, None] if spec.embedding else [None, None, spec.input_size]
    yield layer("InputLayer", "inputs", batch_shape=shape, dtype="int64" if spec.embedding else dtype)
    if spec.embedding:
        size, zeros = spec.embedding.vocabulary_size, _object("Zeros", "keras.initializers")
        yield layer("Embedding", "embedding", input_dim=size, output_dim=spec.input_size, embeddings_initializer=zeros)
    for number in range(spec.num_layers):
        steps = number < spec.num_layers - 1 or spec.head is None or spec.head.reads == "steps"
        options = _recurrent(spec, dtype, steps)
        if spec.num_directions == 1:
            yield layer("SimpleRNN", f"layer_{number}", **options)
        else:
            inner = _object("SimpleRNN", name=f"{prefix}layer_{number}", **options)
            yield layer("Bidirectional", f"layer_{number}", layer=inner, merge_mode=NAMES[spec.merge])
    if spec.head:
        zeros = _object("Zeros", "keras.initializers")
        yield layer("Dense", "head", units=spec.head.size, use_bias=spec.head.bias, kernel_initializer=zeros)


def _recurrent(spec: ModelSpec, dtype: str, steps: bool) -> Data:
    zeros = _object("Zeros", "keras.initializers")
    return {
        "units": spec.hidden_size, "activation": NAMES[spec.nonlinearity], "use_bias": spec.bias != "none",
        "return_sequences": steps, "zero_output_for_mask": True, "dtype": dtype,
        "kernel_initializer": zeros, "recurrent_initializer": zeros,
    }  # fmt: skip


def _object(kind: str, module: str = "keras.layers", **options: Any) -> Data:
    return {"module": module, "class_name": kind, "config": options, "registered_name": None}
