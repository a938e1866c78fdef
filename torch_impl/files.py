"""`.pt` and `.torch.safetensors`: a state dict under torch's names, and the text `rnnzoo` (SPEC.md, 14).

The own layout in a `.pt` is {"state_dict": ..., "rnnzoo": text}; standard layers have a plain state dict, and the text
as its attribute. A safetensors file has the text in its metadata. torch is not needed to read or write them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, NO_HINTS, check_readable, described, envelope, read_envelope
from ..spec.encoder_decoder import AnySpec, EncoderDecoderSpec
from ..spec.errors import RnnZooError, WeightError, listed
from ..spec.found import FoundFile, Hints
from ..spec.naming import KIND
from ..spec.safetensors_format import read_header, write_safetensors
from ..spec.sandbox import examined
from ..spec.stored import StoredTensor
from ..spec.streaming import rows_of
from .finding import layers_in
from .naming import OWN_LAYOUT, not_standard, plain_names, state_dict_names
from .records import Module
from .writing import state_dict, write_checkpoint

STATE_DICT = "state_dict"


class TorchFiles:
    """Finds layers in torch's files and writes such files.

    Attributes:
        plain_bias: the kinds of bias that standard layers have.
    """

    suffixes = (".pt", ".pth", ".bin", ".ckpt", ".torch.safetensors")
    plain_bias = ("none", "double")
    layers_in = staticmethod(layers_in)

    def find(self, path: Path, hints: Hints = NO_HINTS) -> FoundFile:
        """The layers in the file, unread.

        Raises:
            FileError: damaged, another format, or made to do harm.
            WeightError: the tensors do not fit the spec, the file's or the one given.
            UnsupportedError: a spec was given, and the tensors are of an LSTM or a GRU.
        """
        check_readable(path)
        is_pickle = path.suffix.lower() != ".safetensors"
        found = examined(f"{__package__}.checkpoint:contents", path) if is_pickle else _header(path)
        tensors = {name: StoredTensor.from_data(data) for name, data in found["tensors"].items()}
        spec, record = (None, None) if found["text"] is None else read_envelope(found["text"], str(path))
        known = hints.spec or spec
        try:
            modules = {name: Module(*module) for name, module in found["modules"].items()}
            layers, rest = layers_in(tensors, replace(hints, spec=known), modules)
            if known and not layers:
                raise WeightError(f"no state dict of a {known.variant} in it, got {listed(list(tensors)[:5])}")
        except RnnZooError as error:
            raise type(error)(f"{path}: {error}") from error
        if spec:
            layers = [replace(layer, path="", kind=KIND) for layer in layers[:1]]
        left = {name: tensors[name] for name in rest}
        return FoundFile("torch checkpoint", tuple(layers), left, found["facts"], spec, record)

    def holds(self, spec: AnySpec, *, plain: bool = False) -> str | None:
        """None, or why the file cannot hold the model."""
        if plain and not isinstance(spec, EncoderDecoderSpec) and spec.bias not in self.plain_bias:
            return f"torch.nn.RNN has two biases or none, not a {spec.bias} one; {OWN_LAYOUT}"
        return not_standard(spec) if plain else None

    def write(self, path: Path, contents: Contents, *, plain: bool = False, prefix: str = "") -> None:
        """Write the file, each weight as it is read.

        Args:
            plain: a state dict that `load_state_dict` of `torch.nn.RNN` takes as it is; beside an embedding or a head
                the names are those of modules `embedding`, `rnn` and `head`.
            prefix: before each name.

        Raises:
            WeightError: the weights do not fit the spec.
        """
        table = (plain_names if plain else state_dict_names)(contents.spec)
        sizes, text = described(contents), envelope(contents.spec, contents.provenance)
        names = {prefix + own: name for name, own in table.items()}
        tensors = {own: sizes[name] for own, name in names.items()}
        if path.suffix == ".safetensors":
            write_safetensors(path, tensors, lambda own: rows_of(contents.weights, names[own]), {KEY: text})
            return
        value = state_dict(tensors, **{KEY: text}) if plain else {STATE_DICT: state_dict(tensors), KEY: text}
        write_checkpoint(path, value, (rows_of(contents.weights, name) for name in names.values()))


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file holds, as `contents` says it of a checkpoint."""
    tensors, metadata = read_header(path)
    texts = {name: text for name, text in metadata.items() if name != KEY}
    data = {name: tensor.to_data() for name, tensor in tensors.items()}
    return {"tensors": data, "modules": {}, "facts": texts, "text": metadata.get(KEY)}


FILES = TorchFiles()
