"""What the options of Keras' recurrent layers mean to the spec, read from their configurations as data.

An object of a configuration is a dict of `class_name`, `config`, and perhaps `module` and `registered_name`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

Data = Mapping[str, Any]
ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity"}
MERGES = {"concat": "concat", "sum": "sum", "ave": "average", "mul": "multiply"}
RECURRENT = re.compile(r"(SimpleRNN|RNN|(CuDNN)?(LSTM|GRU)|ConvLSTM[123]D)(Cell)?|Bidirectional")
PLAIN = ("units", "activation", "use_bias", "go_backwards", "merge_mode")
OWN_CODE = "is of the class {}, whose code alone says what it does; put its weights into Keras' own layer"
KERAS = ("keras", "keras_core", "tf_keras", "tensorflow")


def is_object(item: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value of a configuration is an object."""
    return isinstance(item, dict) and isinstance(item.get("class_name"), str) and "config" in item


def options(item: Data) -> Data:
    """An object's own configuration."""
    found = item["config"]
    return found if isinstance(found, dict) else {"layers": found}  # a Sequential of the first Keras


def name_of(item: Data) -> str:
    """What the user calls a layer."""
    return str(options(item).get("name") or item.get("name") or snake_case(item["class_name"]))


def snake_case(name: str) -> str:
    """As Keras writes the name of a class in a path: SimpleRNNCell gives simple_rnn_cell."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def own_class(item: Data) -> str | None:
    """The name of a class that is not Keras': it may compute anything."""
    module, registered = item.get("module"), item.get("registered_name")
    if (module or registered) and str(module).partition(".")[0] not in KERAS:
        return str(registered or item["class_name"])
    return None


def directions(layer: Data) -> list[Any]:
    """The layer itself, or the two in a `Bidirectional`."""
    if layer["class_name"] != "Bidirectional":
        return [layer]
    forward, backward = options(layer).get("layer"), options(layer).get("backward_layer")
    if backward is None and is_object(forward):
        backward = {**forward, "config": {**options(forward), "go_backwards": True}}
    return [forward, backward]


def cells(layer: Data) -> list[Any]:
    """The cells of one direction from the bottom to the top; a `SimpleRNN` is its own."""
    cell = options(layer).get("cell")
    if not is_object(cell):
        return [layer]
    if cell["class_name"] != "StackedRNNCells":
        return [cell]
    stacked = options(cell).get("cells")
    return stacked if isinstance(stacked, list) else []


def kind(layer: Data) -> str:
    """Such as `Bidirectional(SimpleRNN)` and `RNN(StackedRNNCells)`."""
    inner = options(layer).get("layer" if layer["class_name"] == "Bidirectional" else "cell")
    return f"{layer['class_name']}({kind(inner)})" if is_object(inner) else str(layer["class_name"])


def activation(cell: Data) -> str:
    """The name of the cell's activation, or what its object or function is called."""
    given = options(cell).get("activation", "tanh")
    if given is None or isinstance(given, str):
        return given or "linear"
    named = given if isinstance(given, dict) else {}
    if named and own_class(named):
        return f"{own_class(named)}, which is not Keras'"
    return next((named[key] for key in ("config", "class_name") if isinstance(named.get(key), str)), "of its own")


def merge_mode(layer: Data) -> Any:
    """Of a `Bidirectional`; `concat` of any other."""
    return options(layer).get("merge_mode", "concat")


def plain(item: Data) -> Data:
    """The options of a layer that say what it computes, as they stand there; what is in no such form is left out."""
    given = options(item)
    found = {"class_name": item["class_name"]} | {name: given[name] for name in PLAIN if name in given}
    if is_object(function := found.get("activation")) and function["class_name"] == "function":
        found["activation"] = function["config"]
    found |= {name: plain(given[name]) for name in ("layer", "backward_layer", "cell") if is_object(given.get(name))}
    if isinstance(within := given.get("cells"), list):
        found["cells"] = [plain(cell) for cell in within if is_object(cell)]
    return found


def obstacles(layer: Data) -> Iterator[str]:
    """Reasons why a layer cannot be converted, as the ends of sentences about it."""
    sides = directions(layer)
    rows = [cells(side) if is_object(side) else [] for side in sides]
    flat = [cell for row in rows for cell in row]
    if not all(rows) or not all(map(is_object, flat)):
        yield "is not whole in the configuration; save the model again"
    yield from _of_classes([layer, *sides, *flat])
    if len(sides) == 2 and len(flat) > 2:
        yield (
            "is two stacks that do not read one another, where each layer of a stack here reads both directions of "
            "the one below; build it of Bidirectional layers instead"
        )
    yield from _of_layers(layer, sides)
    yield from _of_cells(flat)


def _of_classes(objects: list[Data]) -> Iterator[str]:
    for item in objects:
        name = item["class_name"]
        if other := RECURRENT.fullmatch(name) and re.search("LSTM|GRU", name):
            yield f"holds {other[0]} weights; expected a simple recurrent network, such as SimpleRNN"
        if own := own_class(item):
            yield OWN_CODE.format(own)
        if name not in ("SimpleRNN", "SimpleRNNCell", "RNN", "Bidirectional"):
            yield f"has a cell of the class {name}; expected SimpleRNNCell"


def _of_layers(layer: Data, sides: list[Data]) -> Iterator[str]:
    if any(options(side).get("stateful") for side in sides):
        yield (
            "is stateful, and the state that it goes on from is not in the file; "
            "make it with stateful=False and the same weights"
        )
    if [bool(options(side).get("go_backwards")) for side in sides] != [False, True][: len(sides)]:
        yield (
            "reads backward (go_backwards) where it should read forward, which no variant does; "
            "make it with go_backwards=False, and flip its inputs in time"
        )
    merge = merge_mode(layer)
    if not isinstance(merge, str) or merge not in MERGES:
        yield f"does not merge its directions (merge_mode={merge}); expected one of {', '.join(MERGES)}"


def _of_cells(flat: list[Data]) -> Iterator[str]:
    values = {
        "activation": {activation(cell) for cell in flat},
        "units": {str(options(cell).get("units")) for cell in flat},
        "use_bias": {str(options(cell).get("use_bias", True)) for cell in flat},
    }
    for name, found in values.items():
        if len(found) > 1:
            yield f"has cells that differ in {name} ({' and '.join(sorted(found))}); expected the same in all"
    for name in values["activation"] - set(ACTIVATIONS):
        yield f"has the activation {name}; expected one of {', '.join(ACTIVATIONS)}"


def notes(layer: Data) -> Iterator[str]:
    """What of a layer that can be converted is left behind."""
    sides = directions(layer)
    flat = [cell for side in sides for cell in cells(side)]
    for name in ("dropout", "recurrent_dropout"):
        if any(options(cell).get(name) for cell in flat):
            yield f"{name} is left out: it does not act in inference"
    if any("mixed" in json.dumps(options(side).get("dtype")) for side in sides):
        yield "mixed precision is left out: the layer computes in the precision of its weights"
