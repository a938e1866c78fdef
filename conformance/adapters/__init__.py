"""Other people's recurrent layers, under the suite as they are.

An adapter puts the spec's weights into the layers that a user of the framework would write, and repairs nothing:
what differs from the spec turns red. `ADAPTERS` says where each is and what its process needs; no framework is loaded.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Adapter(NamedTuple):
    """Where an adapter is, and what it runs with.

    Attributes:
        target: `package.module:OBJECT`, as `load_backend` takes it.
        environment: variables to set before Python starts, as the frameworks read them while they load.
        packages: what must be installed.
        extra: the extras of this distribution that bring it, as in `pip install 'rnnzoo[keras,torch]'`.
    """

    target: str
    environment: Mapping[str, str]
    packages: tuple[str, ...]
    extra: str


FLOAT64_IN_JAX = {"JAX_ENABLE_X64": "1"}
QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2"}


def _keras(backend: str, variables: Mapping[str, str], packages: tuple[str, ...], extra: str) -> dict[str, Adapter]:
    """Keras on one backend: its layers as they come, and with `unroll=True`."""
    row = {"KERAS_BACKEND": backend, **variables}, ("keras", *packages), extra
    return {
        f"keras-{backend}": Adapter(f"{__name__}.keras_layers:BACKEND", *row),
        f"keras-unrolled-{backend}": Adapter(f"{__name__}.keras_layers:UNROLLED", *row),
    }


ADAPTERS: Mapping[str, Adapter] = {
    "torch.nn.RNN": Adapter("rnnzoo.torch_impl.plain:BACKEND", {}, ("torch",), "torch"),
    "onnxruntime": Adapter(f"{__name__}.onnxruntime_rnn:BACKEND", {}, ("onnx", "onnxruntime"), "onnx"),
    "flax": Adapter(f"{__name__}.flax_rnn:BACKEND", FLOAT64_IN_JAX, ("jax", "flax"), "jax"),
    **_keras("tensorflow", QUIET_TENSORFLOW, ("tensorflow",), "tf"),
    **_keras("torch", {}, ("torch",), "keras,torch"),
    **_keras("jax", FLOAT64_IN_JAX, ("jax",), "keras,jax"),
    **_keras("numpy", {}, (), "keras"),
}
