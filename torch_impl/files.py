"""`.pt` and `.torch.safetensors`: a state dict under torch's names, and the text `rnnzoo` (SPEC.md, 14).

A `.pt` holds {"state_dict": ..., "rnnzoo": text}; a safetensors file has the text in its metadata.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..spec.backend import Contents
from ..spec.checkpoint import KEY, check_readable, envelope, read_envelope, read_safetensors
from ..spec.errors import FileError, WeightError, listed
from ..spec.foreign import refuse_other_cells
from ..spec.model import ModelSpec
from ..spec.parameters import DTYPES, checked_weights, weights_dtype
from .weights import dtype_name, state_dict_names, to_array, to_tensor

STATE_DICT = "state_dict"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal, in torch's messages


class TorchFiles:
    """Reads and writes torch's files; a `.pt` is read with `weights_only=True`, so that nothing in it is run."""

    suffixes = (".pt", ".pth", ".torch.safetensors")

    def read(self, path: Path, spec: ModelSpec | None = None) -> Contents:
        """The spec, weights and provenance of the file. A bare state dict needs the spec.

        Raises:
            FileError: damaged, not a state dict, or without a spec.
            WeightError: the weights do not fit the spec.
            UnsupportedError: the weights of an LSTM or a GRU.
        """
        arrays, text = read_safetensors(path) if path.suffix == ".safetensors" else _read_pt(path, spec)
        found, record = (None, {}) if text is None else read_envelope(text, str(path))
        spec = spec or found
        refuse_other_cells(path, _shapes(arrays), spec)
        if spec is None:
            raise FileError(f"{path}: carries no spec (no entry '{KEY}'); give one with --spec FILE")
        weights = _canonical(path, spec, arrays)
        return Contents(spec, checked_weights(spec, weights, weights_dtype(weights)), record)

    def write(self, path: Path, contents: Contents) -> None:
        """Write the file. Raises WeightError when the weights do not fit the spec."""
        weights = checked_weights(contents.spec, contents.weights, weights_dtype(contents.weights))
        names, text = state_dict_names(contents.spec), envelope(contents.spec, contents.provenance)
        state_dict = {names[name]: to_tensor(array) for name, array in weights.items()}
        if path.suffix == ".safetensors":
            path.write_bytes(safetensors.torch.save(state_dict, metadata={KEY: text}))
            return
        data = io.BytesIO()  # torch.save raises a bare RuntimeError where a disk is full
        torch.save({STATE_DICT: state_dict, KEY: text}, data)
        path.write_bytes(data.getvalue())


def _read_pt(path: Path, spec: ModelSpec | None) -> tuple[dict[str, Any], str | None]:
    check_readable(path)
    _check_sums(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign formats; what cannot be read raises
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles and archives raise nearly anything
        raise FileError(
            f"{path}: cannot be read as a .pt file of tensors alone: {_reason(error)}; "
            "write it with torch.save(model.state_dict(), ...)"
        ) from error
    text = data.get(KEY) if isinstance(data, Mapping) else None
    state_dict = data.get(STATE_DICT, data) if isinstance(data, Mapping) else data
    _check_state_dict(path, state_dict, text, spec)
    return {name: _array(path, name, tensor) for name, tensor in state_dict.items()}, text


def _reason(error: Exception) -> str:
    """One sentence out of torch's many, whose advice to load the file as code is not ours."""
    text = COLOURS.sub("", str(error)).strip()
    if found := re.search(r"(?:GLOBAL|Trying to call reduce for unrecognized function) (\S+)", text):
        return f"it holds {found[1]}, which is no tensor"
    if isinstance(error, EOFError) or text.startswith("Weights only load failed"):
        return "it is damaged, or another format"
    return re.split(r"\.\s|\n", text or type(error).__name__)[0]


def _check_sums(path: Path) -> None:
    """Raises FileError when a member of the archive is not what its checksum says; torch does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # not an archive, or one so damaged that torch.load will say so
        return
    if damaged is not None:
        raise FileError(f"{path}: damaged: its member {damaged} has another checksum than it was written with")


def _check_state_dict(path: Path, state_dict: object, text: object, spec: ModelSpec | None) -> None:
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise FileError(f"{path}: expected a state dict, names to tensors, got {type(state_dict).__name__}")
    for name, inner in state_dict.items():
        if _is_state_dict(inner):
            refuse_other_cells(path, _shapes(inner), spec)
            raise FileError(
                f"{path}: expected a state dict, names to tensors, alone or under '{STATE_DICT}'; got one under "
                f"{name!r}; save that alone: torch.save(checkpoint[{name!r}], ...)"
            )
    if foreign := [name for name, value in state_dict.items() if not isinstance(value, Tensor)]:
        raise FileError(
            f"{path}: expected a state dict, names to tensors, alone or under '{STATE_DICT}'; "
            f"got something else at {listed(foreign[:5])}"
        )
    if text is not None and not isinstance(text, str):
        raise FileError(f"{path}: the entry '{KEY}': expected text, got {type(text).__name__}")


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {str(name): tuple(tensor.shape) for name, tensor in tensors.items()}


def _array(path: Path, name: str, tensor: Tensor) -> Any:
    if dtype_name(tensor.dtype) not in DTYPES or tensor.layout != torch.strided:
        raise WeightError(f"{path}: weight {name}: expected dense {' or '.join(DTYPES)}, got {tensor.dtype}")
    return to_array(tensor)


def _canonical(path: Path, spec: ModelSpec, arrays: Mapping[str, Any]) -> dict[str, Any]:
    names = state_dict_names(spec)
    missing, surplus = set(names.values()) - set(arrays), set(arrays) - set(names.values())
    if missing or surplus:
        raise WeightError(
            f"{path}: state dict of a {spec.variant} with bias '{spec.bias}': missing {listed(missing)}; "
            f"surplus {listed(surplus)}"
        )
    return {name: arrays[own] for name, own in names.items()}
