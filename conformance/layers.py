"""A layer in memory, moved into another framework."""

import warnings
from typing import Any

from ..spec.backend import BUILT_IN, Contents, load_backend, load_files, load_plain
from ..spec.definitions import BIASES
from ..spec.errors import InputError, UnsupportedError, listed
from .adapting import adapted
from .equivalence import checked, side, warn_of_zeros


def converted(layer: Any, backend: str, *, plain: bool = True) -> Any:
    """The same layer in another framework, or back, proven by running both.

    Args:
        layer: a `torch.nn.RNN`, Keras' recurrent layers, or a model that a backend of this package built.
        backend: `torch`, `tf`, ...
        plain: give the framework's own layers (`torch.nn.RNN`; `SimpleRNN`, `Bidirectional`), which need no rnnzoo;
            else the backend's model.

    Raises:
        UnsupportedError: the other framework has no such layer, or the spec no place for it.
        ConformanceError: the two do not compute the same.
    """
    own = [name for name, row in BUILT_IN.items() if row.frameworks]
    if plain and backend not in own:
        raise InputError(f"converted: expected one of {listed(own)}, whose frameworks have layers, got {backend!r}")
    given = side(layer)
    target = load_plain(backend) if plain else load_backend(backend)
    kept, changes = adapted(
        Contents(given.spec, given.weights, {}), load_files(backend).plain_bias if plain else BIASES, plain=plain
    )
    if reason := target.supports(kept.spec):
        raise UnsupportedError(reason)
    found = target.build(kept.spec, dtype=given.dtype)
    target.from_spec(found, dict(kept.weights))
    both = given, side(found)
    warn_of_zeros(*both)
    checked(*both)
    for change in changes:
        warnings.warn(change, stacklevel=2)
    return found
