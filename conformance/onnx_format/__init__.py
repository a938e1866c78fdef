"""ONNX models: layers found in anybody's, and models written with one standard `RNN` node a layer.

Nothing here loads onnx but to write, and nothing but `plain` loads onnxruntime.
"""

from .files import FILES as FILES
