"""Keras objects: `Recurrent`, `SequenceModel` (with embedding, context, head), `EncoderDecoder`; exact optimizers.

Keras and TensorFlow are imported when one of these is first asked for: the files of this package need neither. So
`keras.saving.load_model` knows the class of a model once it has been imported by its name.
"""

from typing import TYPE_CHECKING

from ..spec.on_demand import on_demand

if TYPE_CHECKING:
    from .encoder_decoder import EncoderDecoder as EncoderDecoder
    from .model import SequenceModel as SequenceModel
    from .optimizers import SGD as SGD
    from .optimizers import Adam as Adam
    from .recurrent import Recurrent as Recurrent

__getattr__ = on_demand(__name__, {
    "Recurrent": "recurrent", "SequenceModel": "model", "EncoderDecoder": "encoder_decoder",
    "SGD": "optimizers", "Adam": "optimizers",
}, first="importing")  # fmt: skip
