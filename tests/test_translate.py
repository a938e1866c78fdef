"""Dates written by people, and as ISO writes them: forms, batches, decoding, what is refused, what is learned."""

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance.cli import main
from rnnzoo.spec import Adam, Batch, ClipByGlobalNorm, Dropout, EncoderDecoderSpec, TrainingSpec, load_backend
from rnnzoo.spec.backend import Contents
from rnnzoo.spec.checkpoint import save
from rnnzoo.spec.errors import InputError, SpecError
from rnnzoo.tasks.dates import DAYS, FIRST, FORMS, MONTHS, WRITTEN, pairs
from rnnzoo.tasks.decoding import chosen
from rnnzoo.tasks.drawn import rows_of
from rnnzoo.tasks.evaluate import evaluate
from rnnzoo.tasks.sample import sample
from rnnzoo.tasks.task import model_spec
from rnnzoo.tasks.translate import END, START, Translate, as_batch, iso_of, translated
from rnnzoo.tasks.trigrams import Trigrams

FIELDS: dict[str, Any] = {"variant": "bi_rnn", "hidden_size": 24}
BACKENDS = ("numpy", "torch", "tf")


def test_every_form_names_the_day_as_people_do() -> None:
    found = [form(datetime.date(2003, 3, 22), "march") for form in FORMS]
    assert found == [
        "22nd of march 2003", "22 march 2003", "march 22, 2003", "march 22nd 2003", "mar 22 2003", "22 mar '03",
        "2003/3/22", "22.3.2003",
    ]  # fmt: skip
    ordinals = {
        day: FORMS[0](datetime.date(2000, 1, day), "january").split()[0] for day in (1, 2, 3, 4, 11, 12, 13, 21, 31)
    }
    assert list(ordinals.values()) == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "31st"]


def test_no_text_stands_for_two_days() -> None:
    days = [FIRST + datetime.timedelta(days=day) for day in range(DAYS)]
    texts = {form(day, MONTHS[day.month - 1]) for day in days for form in FORMS}
    same = sum(len({form(day, MONTHS[day.month - 1]) for form in FORMS}) for day in days)
    assert len(texts) == same  # forms of one day may agree, such as those of may
    assert set("".join(texts)) == set(WRITTEN) and days[-1] == datetime.date(2049, 12, 31)


def test_pairs_are_drawn_from_the_days_given() -> None:
    found = pairs(1, "some", [0, 31], 60)
    assert {iso for _, iso in found} == {"1950-01-01", "1950-02-01"}
    assert len({text for text, _ in found}) > 10 and found == pairs(1, "some", [0, 31], 60) != pairs(
        2, "some", [0, 31], 60
    )


def test_a_batch_forces_the_teacher_and_pads_the_source() -> None:
    batch = as_batch(pairs(0, "some", np.arange(DAYS), 50))
    assert (batch.inputs[:, 0] == START).all() and (batch.inputs[:, 1:] == batch.targets[:, :-1]).all()
    assert (batch.targets[:, -1] == END).all()
    for row, (text, iso) in enumerate(pairs(0, "some", np.arange(DAYS), 50)):
        length = batch.context.lengths[row]
        assert "".join(WRITTEN[token] for token in batch.context.inputs[row, :length]) == text
        assert iso_of(batch.targets[row]) == iso
    assert rows_of(batch, slice(3, 5)).context.lengths.tolist() == batch.context.lengths[3:5].tolist()


def test_no_day_of_the_test_is_in_the_training() -> None:
    task = Translate()
    assert set(task.held_out) | set(task.training) == set(range(DAYS)) and not set(task.held_out) & set(task.training)
    tested = {iso for _, iso in task.test_pairs}
    trained = {iso_of(row) for batch in task.epoch(1, 3200, 0) for row in batch.targets}
    assert not tested & trained and len(tested) > 800


@pytest.mark.parametrize("variant", ["simple_rnn", "bi_rnn", "stacked_rnn", "stacked_bi_rnn"])
def test_every_variant_is_an_encoder_and_its_decoder_reads_forward(variant: str) -> None:
    layers = 2 if "stacked" in variant else 1
    spec = model_spec(Translate(), {"variant": variant, "hidden_size": 4, "num_layers": layers})
    assert isinstance(spec, EncoderDecoderSpec)
    assert (spec.encoder.variant, spec.decoder.variant) == (variant, variant.replace("bi_rnn", "rnn").replace(
        "simple_rnn", "simple_rnn") if layers == 2 else "simple_rnn")  # fmt: skip
    assert spec.decoder.num_layers == layers


def test_a_decoder_of_one_layer_drops_what_its_encoder_drops_but_nothing_between_layers() -> None:
    fields = {"variant": "stacked_rnn", "hidden_size": 3, "num_layers": 2}
    fields |= {"dropout": {"between_layers": 0.2, "inputs": 0.0, "state": 0.1}}
    for decoder, rates in (("simple_rnn", Dropout(state=0.1)), (None, Dropout(0.2, state=0.1))):
        spec = model_spec(Translate(decoder=decoder), fields)
        assert isinstance(spec, EncoderDecoderSpec)
        assert (spec.encoder.dropout, spec.decoder.dropout) == (Dropout(0.2, state=0.1), rates)


def test_a_decoder_that_would_see_its_target_is_refused() -> None:
    with pytest.raises(SpecError, match=r"a decoder that is a bi_rnn reads backward.*leave task.decoder out"):
        model_spec(Translate(decoder="bi_rnn"), FIELDS)
    with pytest.raises(SpecError, match="decoder: expected one of 'bi_rnn', 'simple_rnn'"):
        model_spec(Translate(decoder="lstm"), FIELDS)
    spec = model_spec(Translate(decoder="simple_rnn"), {**FIELDS, "variant": "stacked_bi_rnn", "num_layers": 2})
    assert isinstance(spec, EncoderDecoderSpec) and spec.decoder.num_layers == 1


def test_decoding_reads_its_own_likeliest_characters_until_the_end() -> None:
    task, backend = Translate(), load_backend("numpy")
    model = backend.build(model_spec(task, FIELDS), seed=1)
    source = rows_of(task.test, slice(0, 6)).context
    for row, tokens in enumerate(translated(backend, model, source)):
        own = rows_of(Batch(source.inputs, source.inputs, context=source), slice(row, row + 1)).context
        said: list[int] = []
        while END not in said and len(said) < 11:
            result = backend.run(model, np.array([[START, *said]]), context=own)
            said.append(int(result.scores[0, -1].argmax()))
        assert tokens.tolist() == [*said, *[END] * 11][:11]


def test_draws_follow_the_probabilities_and_cold_ones_are_the_likeliest() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25]]))
    assert [chosen(scores, 1.0, np.array([number]))[0] for number in (0.0, 0.49, 0.51, 0.74, 0.76, 0.999)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert chosen(scores, 0.0, np.array([0.99]))[0] == 0
    assert chosen(scores, 0.05, np.array([0.99]))[0] == 0


def test_naive_bayes_counts_with_one_added() -> None:
    known = Trigrams(pairs(0, "some", np.arange(DAYS), 3000))
    assert known.guess("12 march 1998") == known.guess("12.3.1998") == "1998-03-12"
    assert 0.4 < Translate()._baseline() < 0.7


@pytest.fixture(scope="module")
def learned() -> Contents:
    """A model that knows sixteen dates of the test by heart."""
    task, backend = Translate(embedding_size=8), load_backend("numpy")
    model = backend.build(model_spec(task, {**FIELDS, "initializer": "keras"}), seed=0)
    trainer = backend.trainer(model, TrainingSpec(task.loss, Adam(0.01), ClipByGlobalNorm(1.0)))
    for _ in range(250):
        trainer.step(rows_of(task.test, slice(0, 16)))
    return Contents(model.spec, backend.to_spec(model), {"task": task.settings()})


def test_what_was_learned_by_heart_is_said_in_every_framework(learned: Contents) -> None:
    some = Translate().test_pairs[:16]
    wanted = [iso for _, iso in some]
    for name in BACKENDS:
        said = sample(learned, name, inputs=[text for text, _ in some])
        assert re.findall(r"\d{4}-\d\d-\d\d", said) == wanted, name
    assert sample(learned, "numpy", count=16) == said


def test_evaluation_counts_whole_dates(learned: Contents) -> None:
    evaluation = evaluate(learned, "numpy")
    assert evaluation.metrics["exact_dates"] >= 0.016 and evaluation.predictions.shape == (1000, 11)
    assert evaluation.metrics["accuracy"] > evaluation.metrics["exact_dates"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inputs": ["3rd of März"]}, InputError, "expected a date in the characters .*, got 'M', 'z', 'ä'"),
        ({"inputs": [""]}, InputError, "got an empty text"),
        ({"length": 3}, SpecError, "task 'translate' has no option 'length'; it has 'count', 'inputs'"),
        ({"count": 0}, SpecError, "count: expected an integer of at least 1"),
        ({"data": "x"}, SpecError, "no override 'data'"),
    ],
)
def test_what_cannot_be_translated_is_refused(
    learned: Contents, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sample(learned, "numpy", **options)


def test_the_command_line_translates(learned: Contents, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "model.safetensors", learned)
    text, iso = Translate().test_pairs[0]
    assert main(["sample", str(tmp_path / "model.safetensors"), "--input", text]) == 0
    assert iso in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "model.safetensors")]) == 0
    assert "encoder: bi_rnn" in capsys.readouterr().out
    assert main(["sample", str(tmp_path / "model.safetensors"), "--greedy"]) == 2
    assert "no option 'temperature'" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_the_recipe_translates_days_that_it_has_not_seen(backend_name: str, tmp_path: Path) -> None:
    folder = f"hydra.run.dir={tmp_path}"
    assert main(["train", "experiment=translate", f"backend={backend_name}", "trainer.progress=false", folder]) == 0
    from rnnzoo.conformance.formats import read

    assert evaluate(read(tmp_path / "model.safetensors"), backend_name).value >= 0.98
