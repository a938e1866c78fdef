"""PyTorch modules: `Recurrent`, the core; `SequenceModel`, with embedding, context and head; `EncoderDecoder`.

torch is loaded with the first of these names, not by the package: its files are read without torch. A program that
`torch.export` made of them runs the operator `rnnzoo::recurrence`: import `rnnzoo.torch_impl.recurrence` before
`torch.export.load`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder_decoder import EncoderDecoder as EncoderDecoder
    from .model import SequenceModel as SequenceModel
    from .model import SequenceOutput as SequenceOutput
    from .recurrent import Recurrent as Recurrent

PLACES = {
    "Recurrent": "recurrent", "SequenceModel": "model", "SequenceOutput": "model", "EncoderDecoder": "encoder_decoder",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{PLACES[name]}", __name__), name)
