"""Keras objects: `Recurrent`, a layer; `SequenceModel`, it with embedding, context and head; exact optimizers."""

from . import importing as importing  # first: TensorFlow itself
from .model import SequenceModel as SequenceModel
from .optimizers import SGD as SGD
from .optimizers import Adam as Adam
from .recurrent import Recurrent as Recurrent
