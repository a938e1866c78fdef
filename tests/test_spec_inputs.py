"""What a model is run on is checked once, and every way to be wrong has its own message."""

import numpy as np
import pytest

from rnnzoo.spec import Context, Embedding, Head, ModelSpec
from rnnzoo.spec.errors import InputError
from rnnzoo.spec.inputs import checked_cotangents, checked_inputs, checked_mask, checked_states, state_gradients

B, T, I, H, V, C, O = 3, 5, 4, 6, 9, 2, 7  # noqa: E741 (the spec's symbols)
CORE = ModelSpec("stacked_bi_rnn", I, H, 2)
TOKENS = ModelSpec("simple_rnn", I, H, embedding=Embedding(V))
CAPTION = ModelSpec("simple_rnn", I, H, context=Context(C))
X = np.random.default_rng(0).normal(size=(B, T, I))
STATE = np.ones((4, B, H))
IDS = np.arange(B * T).reshape(B, T) % V


def test_numbers_are_converted_to_the_dtype_of_the_model() -> None:
    given = checked_inputs(CORE, "float32", X.tolist(), initial_state=STATE.astype(int))
    assert given.inputs.dtype == np.float32 and given.inputs.shape == (B, T, I)
    assert given.initial_states is not None and given.initial_states["h"].dtype == np.float32
    assert given.mask is None and given.context is None
    assert checked_inputs(TOKENS, "float32", IDS.astype(np.uint8)).inputs.dtype == np.int64


@pytest.mark.parametrize(
    ("spec", "inputs", "options", "words"),
    [
        (CORE, X[0], {}, r"inputs: expected shape \(B, T, 4\) with B and T at least 1, got \(5, 4\)"),
        (CORE, X[:, :, :3], {}, r"inputs: expected shape \(B, T, 4\).*got \(3, 5, 3\)"),
        (CORE, X[:0], {}, r"at least 1, got \(0, 5, 4\)"),
        (CORE, X[:, :0], {}, r"at least 1, got \(3, 0, 4\)"),
        (CORE, 3.0, {}, r"got \(\)"),
        (CORE, [[1.0, 2.0], [3.0]], {}, "inputs: expected an array, got a list"),
        (CORE, X + 0j, {}, "inputs: expected real numbers, got dtype complex128"),
        (CORE, X.astype(str), {}, "inputs: expected real numbers"),
        (CORE, X.astype(object), {}, "inputs: expected real numbers, got dtype object"),
        (CORE, X, {"lengths": [1, 2, 3], "mask": np.ones((B, T), bool)}, "lengths and mask: .* got both"),
        (CORE, X, {"lengths": [1, 2]}, r"lengths: expected 3 integers, got shape \(2,\)"),
        (CORE, X, {"lengths": [1.0, 2.0, 3.0]}, "lengths: expected 3 integers, got .* of float64"),
        (CORE, X, {"lengths": [1, 2, 6]}, "lengths: expected values from 0 to T = 5, got 1 to 6"),
        (CORE, X, {"lengths": [1, -2, 5]}, "lengths: expected values from 0 to T = 5, got -2 to 5"),
        (CORE, X, {"lengths": [[1], [2, 3], 4]}, "lengths: expected an array"),
        (CORE, X, {"mask": np.ones((B, T))}, r"mask: expected bool of shape \(3, 5\), got float64"),
        (CORE, X, {"mask": np.ones((T, B), bool)}, r"mask: expected bool of shape \(3, 5\), .* \(5, 3\)"),
        (CORE, X, {"initial_state": STATE[:2]}, r"initial_state h: expected shape \(4, 3, 6\), got \(2, 3, 6\)"),
        (CORE, X, {"initial_state": {"c": STATE}}, "initial_state: expected the states 'h', got 'c'"),
        (CORE, X, {"initial_state": {"h": STATE, "c": STATE}}, "expected the states 'h', got 'c', 'h'"),
        (CORE, X, {"initial_state": STATE + 1j}, "initial_state h: expected real numbers"),
        (CORE, X, {"context": np.ones((B, C))}, r"context: this model has none; build it with context=Context\(size\)"),
        (TOKENS, X, {}, r"inputs: expected shape \(B, T\) tokens"),
        (TOKENS, IDS * 1.0, {}, "inputs: expected integer tokens.*got dtype float64"),
        (TOKENS, IDS + 1, {}, "tokens from 0 to 8 at valid steps, got 1 to 9"),
        (TOKENS, IDS - 1, {}, "tokens from 0 to 8 at valid steps, got -1 to 7"),
        (CAPTION, X, {}, "context and initial_state: a model with a context takes exactly one"),
        (CAPTION, X, {"context": np.ones((B, C)), "initial_state": np.ones((1, B, H))}, "takes exactly one"),
        (CAPTION, X, {"context": np.ones((B, C + 1))}, r"context: expected shape \(3, 2\), got \(3, 3\)"),
        (CAPTION, X, {"context": np.full((B, C), "a")}, "context: expected real numbers"),
    ],
)  # fmt: skip
def test_arguments_without_a_meaning_are_refused(
    spec: ModelSpec, inputs: object, options: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        checked_inputs(spec, "float64", inputs, **options)


def test_lengths_are_the_mask_of_the_steps_before_them() -> None:
    mask = checked_mask(B, T, [0, 5, 2], None)
    assert mask is not None
    assert mask.tolist() == [[False] * 5, [True] * 5, [True, True, False, False, False]]
    assert checked_mask(B, T, None, mask) is mask


def test_a_mask_without_invalid_steps_is_no_mask() -> None:
    assert checked_mask(B, T, [T] * B, None) is None
    assert checked_mask(B, T, None, np.ones((B, T), bool)) is None


def test_any_token_may_stand_in_the_padding() -> None:
    padded = IDS.copy()
    padded[1, 2:] = [-7, 10**9, V]
    assert checked_inputs(TOKENS, "float32", padded, lengths=[5, 2, 5]).mask is not None
    with pytest.raises(InputError, match="at valid steps"):
        checked_inputs(TOKENS, "float32", padded, lengths=[5, 3, 5])
    nothing_valid = checked_inputs(TOKENS, "float32", np.full((B, T), -1), lengths=[0, 0, 0])
    assert nothing_valid.mask is not None and not nothing_valid.mask.any()


def test_one_array_stands_for_the_only_state() -> None:
    assert np.array_equal(checked_states(CORE, "float64", B, STATE, "state")["h"], STATE)
    assert np.array_equal(checked_states(CORE, "float64", B, {"h": STATE}, "state")["h"], STATE)


def test_a_cell_of_two_states_wants_both_by_name(toy_cell: object) -> None:
    spec = ModelSpec("simple_rnn", I, H, cell="toy")
    both = {"h": np.ones((1, B, H)), "c": np.zeros((1, B, H))}
    assert list(checked_states(spec, "float64", B, both, "state")) == ["c", "h"]
    with pytest.raises(InputError, match="state: cell toy has the states 'c', 'h'; give a dict"):
        checked_states(spec, "float64", B, both["h"], "state")
    with pytest.raises(InputError, match="state: expected the states 'c', 'h', got 'h'"):
        checked_states(spec, "float64", B, {"h": both["h"]}, "state")
    assert list(state_gradients(spec, both)) == ["initial_state.h", "initial_state"]


def test_cotangents_have_the_shapes_of_the_results() -> None:
    steps, final = (
        ModelSpec("bi_rnn", I, H, head=Head(O)),
        ModelSpec("bi_rnn", I, H, merge="sum", head=Head(O, reads="final")),
    )
    outputs, scores = np.ones((B, T, 2 * H)), np.ones((B, T, O))
    found = checked_cotangents(steps, "float32", B, T, outputs=outputs, scores=scores, final_state=np.ones((2, B, H)))
    assert found.outputs is not None and found.outputs.dtype == np.float32
    assert found.final_states is not None and list(found.final_states) == ["h"]
    assert checked_cotangents(steps, "float32", B, T) == type(found)(None, None, None)
    assert checked_cotangents(final, "float64", B, T, scores=scores[:, 0]).scores is not None
    for spec, options, words in [
        (steps, {"outputs": outputs[:, :, :H]}, r"outputs_cotangent: expected shape \(3, 5, 12\), got \(3, 5, 6\)"),
        (final, {"scores": scores}, r"scores_cotangent: expected shape \(3, 7\), got \(3, 5, 7\)"),
        (steps, {"final_state": STATE}, r"final_state_cotangent h: expected shape \(2, 3, 6\), got \(4, 3, 6\)"),
        (CORE, {"scores": scores}, "scores_cotangent: this model has no head"),
        (steps, {"scores": [[1], [1, 2]]}, "scores_cotangent: expected an array"),
    ]:
        with pytest.raises(InputError, match=words):
            checked_cotangents(spec, "float64", B, T, **options)
