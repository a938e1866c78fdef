"""PyTorch modules: `Recurrent`, the core, and `SequenceModel`, the core with embedding, context and head.

A program that `torch.export` made of them runs the operator `rnnzoo::recurrence`: import this package before
`torch.export.load`.
"""

from .model import SequenceModel as SequenceModel
from .model import SequenceOutput as SequenceOutput
from .recurrent import Recurrent as Recurrent
