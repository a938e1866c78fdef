"""Everything that is measured, one file for each library.

An engine is a function of a problem that gives what is timed, by mode: `f`, outputs from inputs, and `fb`, the
gradients of inputs and weights as well. A mode that an engine does not have is left out.
"""

import importlib
from collections.abc import Callable, Mapping

from ..problem import Problem

Timed = Mapping[str, Callable[[], object]]

ENGINES: Mapping[str, tuple[str, str]] = {
    "floor, NumPy": ("numpy_engines", "floor"),
    "floor, torch": ("torch_engines", "floor"),
    "floor, TensorFlow": ("tf_engines", "floor"),
    "NumPy loop": ("numpy_engines", "loop"),
    "torch.nn.RNN": ("torch_engines", "native"),
    "keras graph": ("tf_engines", "native_graph"),
    "keras XLA": ("tf_engines", "native_xla"),
    "keras eager": ("tf_engines", "native_eager"),
    "onnxruntime": ("onnx_engines", "session"),
    "jax scan": ("jax_engines", "scan"),
    "rnnzoo numpy": ("numpy_engines", "ours"),
    "rnnzoo torch": ("torch_engines", "ours"),
    "rnnzoo tf": ("tf_engines", "ours_graph"),
    "rnnzoo tf XLA": ("tf_engines", "ours_xla"),
    "rnnzoo tf eager": ("tf_engines", "ours_eager"),
}  # the module here, and the function in it
MEMORY: Mapping[str, tuple[str, str]] = {
    "rnnzoo numpy fb": ("numpy_engines", "memory"),
    "rnnzoo torch fb": ("torch_engines", "memory"),
    "rnnzoo torch update": ("torch_engines", "memory_of_update"),
    "rnnzoo tf update": ("tf_memory", "memory_of_update"),
}  # the module here, and the function in it


def load_engine(name: str) -> Callable[[Problem], Timed]:
    """The engine of that name; its library is imported."""
    module, function = ENGINES[name]
    engine: Callable[[Problem], Timed] = getattr(importlib.import_module(f".{module}", __package__), function)
    return engine


def load_memory(name: str) -> Callable[..., int]:
    """The peak in bytes of what stands in `MEMORY`, a function of a problem and `recompute`."""
    module, function = MEMORY[name]
    found: Callable[..., int] = getattr(importlib.import_module(f".{module}", __package__), function)
    return found


def check_device(name: str) -> None:
    """Raises InputError unless torch has the device here."""
    importlib.import_module(".torch_engines", __package__).check_device(name)
