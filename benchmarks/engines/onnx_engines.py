"""onnxruntime: one standard `RNN` node."""

import os

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ..problem import Problem
from . import Timed


def session(problem: Problem) -> Timed:
    """Inference alone: onnxruntime has no gradient."""
    W_x, W_h, b = problem.weights().values()
    constants = {"W": W_x[None], "R": W_h[None], "B": np.concatenate([b, np.zeros_like(b)])[None]}
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("RNN", ["X", "W", "R", "B"], ["Y"], hidden_size=problem.H)],
        "layer",
        [helper.make_tensor_value_info("X", number, [problem.T, problem.B, problem.I])],
        [helper.make_tensor_value_info("Y", number, [problem.T, 1, problem.B, problem.H])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    run = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    x = problem.inputs().swapaxes(0, 1).copy()
    return {"f": lambda: run.run(None, {"X": x})}
