"""PyTorch modules: `Recurrent`, the core; `SequenceModel`, with embedding, context and head; `EncoderDecoder`.

torch is loaded with the first of these names, not by the package: its files are read without torch. A program that
`torch.export` made of them runs the operator `rnnzoo::recurrence`: import `rnnzoo.torch_impl.recurrence` before
`torch.export.load`.
"""

from typing import TYPE_CHECKING

from ..spec.on_demand import on_demand

if TYPE_CHECKING:
    from .encoder_decoder import EncoderDecoder as EncoderDecoder
    from .model import SequenceModel as SequenceModel
    from .model import SequenceOutput as SequenceOutput
    from .recurrent import Recurrent as Recurrent

__getattr__ = on_demand(__name__, {
    "Recurrent": "recurrent", "SequenceModel": "model", "SequenceOutput": "model", "EncoderDecoder": "encoder_decoder",
})  # fmt: skip
