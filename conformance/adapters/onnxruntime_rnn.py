"""onnxruntime, on a graph of one standard `RNN` node for each layer; other nodes put the directions together.

It is the graph of the files that this package writes, except that the final states are as the nodes give them.
"""

from pathlib import Path
from typing import Any

import onnx

from ...spec.model import ModelSpec
from ..onnx_format.plain import OnnxRuntime
from .plain import beyond_layers

UNREPAIRED = "ended"  # the final states before the initial ones of rows without a step are put back


class OnnxRuntimeRNN(OnnxRuntime):
    """Inference on the CPU."""

    target = f"{__name__}:BACKEND"
    final_state = UNREPAIRED

    def supports(self, spec: ModelSpec) -> str | None:
        """None, or why the model cannot be run."""
        return beyond_layers(spec)

    def opened(self, model: Path | bytes) -> Any:
        """A session of the graph in a file, which gives those final states too."""
        graph = onnx.load(model)
        output = graph.graph.output.add()
        output.CopyFrom(next(value for value in graph.graph.output if value.name == "final_state"))
        output.name = UNREPAIRED
        return super().opened(graph.SerializeToString())


BACKEND = OnnxRuntimeRNN()
