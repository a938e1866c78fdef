"""A backend that is a process: a program in any language that is asked by lines of JSON (PROTOCOL.md)."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from ..spec.backend import Result
from ..spec.checkpoint import check_readable
from ..spec.contract import TAKES, check_names, check_values
from ..spec.definitions import BIASES, cell_names, variant_names
from ..spec.errors import BackendError, FileError, UnsupportedError, shown
from ..spec.inputs import Cotangents, Inputs, state_gradients
from ..spec.model import MERGES, NONLINEARITIES, ModelSpec
from ..spec.parameters import DTYPES, parameters
from .answers import Shapes, result_shapes
from .program import Program, readable
from .stateless import DifferentiatingStatelessBackend, StatelessBackend, StatelessModel

Array = NDArray[Any]
MAY_BE_EMPTY = ("merges", "heads", "parts", "takes")
TIMEOUT = 60.0  # seconds for an answer
CODES = {"float32": "F32", "float64": "F64"}  # safetensors' names


class ProcessBackend(StatelessBackend):
    """A program that computes, asked with lines of JSON and safetensors files.

    It is started now, and again after each failure. This object has `gradients` if the program declares them.

    Attributes:
        version, language: what the program says of itself.
        declared: what it does: lists of values by the keys of PROTOCOL.md.

    Raises:
        BackendError: the program cannot be started, or does not say what it is and does.
    """

    def __init__(self, command: Sequence[str], timeout: float = TIMEOUT) -> None:
        self._command, self._timeout = tuple(command), timeout
        self._program = Program(self._command, timeout)
        title = self._program.title
        self.name, self.version, self.language = _introduction(f"{title}, start", self._program.started)
        self.declared = _declaration(f"{title}, describe", self._program.ask("describe"))
        self.dtypes, self.takes = self.declared["dtypes"], self.declared["takes"]
        self.takes += ("lengths",) if "mask" in self.takes else ()  # which are sent as a mask then
        if "gradients" in self.declared["gives"]:
            self.gradients = MethodType(DifferentiatingStatelessBackend.gradients, self)

    def close(self) -> None:
        """Stop the program; a later run starts it again."""
        self._program.stop()

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or what the program does not declare."""
        needed = [("cells", spec.cell), ("variants", spec.variant)]
        needed += [("nonlinearities", spec.nonlinearity), ("biases", spec.bias)]
        needed += [("merges", spec.merge)] if spec.num_directions == 2 else []
        needed += [("heads", spec.head.reads)] if spec.head else []
        needed += [("parts", part) for part in ("embedding", "context") if getattr(spec, part)]
        missing = [f"'{value}' among its {key}" for key, value in needed if value not in self.declared[key]]
        return f"{self.name} does not declare {', '.join(missing)}" if missing else None

    def results(self, model: StatelessModel, given: Inputs) -> Result:
        """What the program computes. Raises UnsupportedError or BackendError."""
        shapes = result_shapes(model.spec, *given.inputs.shape[:2])
        found = self._run("results", model, self._arrays(model, given), shapes)
        states = {name: found[f"final_state.{name}"] for name in model.spec.cell_definition.states}
        return Result(found["outputs"], states, found.get("scores"))

    def derivatives(self, model: StatelessModel, given: Inputs, cotangents: Cotangents) -> dict[str, Array]:
        """The gradients that the program computes. Raises UnsupportedError or BackendError."""
        of = {"outputs": cotangents.outputs, "scores": cotangents.scores}
        of |= {f"final_state.{name}": array for name, array in (cotangents.final_states or {}).items()}
        arrays = {f"cotangent.{name}": array for name, array in of.items() if array is not None}
        arrays |= self._arrays(model, given)
        return self._run("gradients", model, arrays, _gradient_shapes(model.spec, given))

    def _arrays(self, model: StatelessModel, given: Inputs) -> dict[str, Array]:
        found = {**model.weights, "inputs": given.inputs}
        if given.mask is not None:
            found |= self._valid_steps(given.mask)
        if given.initial_states is not None:
            self._check_takes("initial_state")
            found |= state_gradients(model.spec, given.initial_states)  # a gradient has its array's name
        return found if given.context is None else {**found, "context": given.context}

    def _valid_steps(self, mask: NDArray[np.bool_]) -> dict[str, Array]:
        """Lengths where the mask stands for some and the program takes them, else the mask."""
        lengths = mask.sum(axis=1, dtype=np.int64)
        if "lengths" in self.declared["takes"] and (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all():
            return {"lengths": lengths}
        self._check_takes("mask")
        return {"mask": mask}

    def _check_takes(self, name: str) -> None:
        if name not in self.declared["takes"]:
            raise UnsupportedError(f"{self.name} does not declare '{name}' among what it takes")

    def _run(self, give: str, model: StatelessModel, arrays: Mapping[str, Array], shapes: Shapes) -> dict[str, Array]:
        if not self._program.stop.alive:
            self._program = Program(self._command, self._timeout)
        with tempfile.TemporaryDirectory(prefix="rnnzoo-", ignore_cleanup_errors=True) as folder:
            read, write = Path(folder, "given.safetensors"), Path(folder, "found.safetensors")
            safetensors.numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, read)
            spec = {key: value for key, value in json.loads(model.spec.to_json()).items() if key != "initializer"}
            self._program.last_words()  # of earlier runs, which are not what this one says
            self._program.ask("run", spec=spec, dtype=model.dtype, give=give, read=str(read), write=str(write))
            try:
                return _answered(write, shapes, CODES[model.dtype])
            except BackendError as error:
                raise BackendError(f"{error}{self._program.last_words()}") from error


def _introduction(where: str, found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name, version and language; known failures are in a file of that name."""
    check_names(where, found, ("name", "version", "language"))
    if wrong := [key for key, value in found.items() if not isinstance(value, str) or not value]:
        raise BackendError(f"{where}, {wrong[0]}: expected a text, got {shown(found[wrong[0]])}")
    if not re.fullmatch(r"\w[\w.+-]*", found["name"], re.ASCII):
        got = shown(found["name"])
        raise BackendError(f"{where}, name: expected letters, digits, '_', '.', '+' and '-', got {got}")
    return found["name"], readable(found["version"]), readable(found["language"])


def _declaration(where: str, found: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What the program declares, checked against all that can be declared."""
    known: dict[str, Sequence[str]] = {
        "dtypes": DTYPES, "cells": cell_names(), "variants": variant_names(), "nonlinearities": NONLINEARITIES,
        "biases": BIASES, "merges": MERGES, "heads": ("steps", "final"), "parts": ("embedding", "context"),
        "takes": TAKES, "gives": ("results", "gradients"),
    }  # fmt: skip
    check_names(where, found, known)
    for key, values in found.items():
        check_values(f"{where}, {key}", values, known[key], empty=key in MAY_BE_EMPTY)
    if "results" not in found["gives"]:
        raise BackendError(f"{where}, gives: expected 'results' among them, got gradients alone")
    return {key: tuple(values) for key, values in found.items()}


def _gradient_shapes(spec: ModelSpec, given: Inputs) -> Shapes:
    found: Shapes = {parameter.name: parameter.shape for parameter in parameters(spec)}
    if not spec.embedding:
        found["inputs"] = given.inputs.shape
    if given.context is not None:
        return {**found, "context": given.context.shape}
    state = np.empty(spec.state_shape(len(given.inputs)))
    states = state_gradients(spec, dict.fromkeys(spec.cell_definition.states, state))
    return found | {name: array.shape for name, array in states.items()}


def _answered(path: Path, shapes: Shapes, code: str) -> dict[str, Array]:
    """The arrays of an answer, read once their names, dtypes and shapes are right. Raises BackendError."""
    try:
        check_readable(path)
        with safetensors.safe_open(path, framework="numpy") as file:
            check_names(path.name, file.keys(), shapes)
            for name, shape in shapes.items():
                part = file.get_slice(name)
                dtype, got = part.get_dtype(), tuple(part.get_shape())
                if (dtype, got) != (code, shape):
                    raise BackendError(f"{path.name}, {name}: expected {code} of shape {shape}, got {dtype} of {got}")
            return {name: file.get_tensor(name) for name in shapes}
    except (FileError, safetensors.SafetensorError, OSError) as error:
        why = readable(str(error))
        raise BackendError(f"{path.name}: expected a whole safetensors file in answer: {why}") from error
