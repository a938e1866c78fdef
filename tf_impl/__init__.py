"""Keras objects: `Recurrent`, `SequenceModel` (with embedding, context, head), `EncoderDecoder`; exact optimizers.

Keras and TensorFlow are imported when one of these is first asked for: the files of this package need neither. So
`keras.saving.load_model` knows the class of a model once it has been imported by its name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder_decoder import EncoderDecoder as EncoderDecoder
    from .model import SequenceModel as SequenceModel
    from .optimizers import SGD as SGD
    from .optimizers import Adam as Adam
    from .recurrent import Recurrent as Recurrent

MODULES = {
    "Recurrent": "recurrent", "SequenceModel": "model", "EncoderDecoder": "encoder_decoder",
    "SGD": "optimizers", "Adam": "optimizers",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".importing", __name__)  # first: TensorFlow itself
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
