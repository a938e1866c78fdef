"""Sequences out of a model that reads its own output: greedily, or drawn from what it holds likely."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import draws
from .task import Array, log_softmax

Tokens = NDArray[np.int64]


def decoded(
    backend: Any, model: Any, context: Any, start: int, end: int, longest: int, *, temperature: float = 0.0,
    seed: int = 0, stream: str = "",
) -> Tokens:  # fmt: skip
    """The token after every token from the start on, (N, longest); after the first end there are only ends.

    Args:
        context: what the model starts from, one row for each sequence.
        temperature, seed, stream: as for `chosen`; 0 takes the likeliest.
    """
    rows = len(context if isinstance(context, np.ndarray) else context.inputs)
    numbers = draws.uniform(seed, stream, rows * longest).reshape(rows, longest) if temperature else None
    tokens, state = np.full((rows, 1), start), None
    found = np.full((rows, longest), end)
    for step in range(longest):
        result = backend.run(model, tokens, initial_state=state, context=context if step == 0 else None)
        now = None if numbers is None else numbers[:, step]
        tokens, state = chosen(result.scores[:, 0], temperature, now)[:, None], result.final_states
        found[:, step] = np.where((found[:, :step] == end).any(axis=1), end, tokens[:, 0])
    return found


def chosen(scores: Array, temperature: float, numbers: Array | None) -> Tokens:
    """A class for each row of scores (N, O), drawn from softmax(scores / temperature); at 0 the likeliest.

    It is the one at which the cumulated probabilities pass the row's number, which is uniform in [0, 1).
    """
    if temperature == 0 or numbers is None:
        return np.asarray(scores.argmax(axis=1))
    cumulated = np.cumsum(np.exp(log_softmax(scores.astype(np.float64) / temperature)), axis=1)
    passed = cumulated <= (numbers * cumulated[:, -1])[:, None]
    found: Tokens = np.minimum(passed.sum(axis=1), scores.shape[1] - 1)
    return found
