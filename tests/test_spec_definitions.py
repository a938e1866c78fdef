"""Variants and cells as data: the files fit their schemas, the grammar is as small as it says, clauses exist."""

import dataclasses
import json
import math
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from rnnzoo.spec import definitions, expressions
from rnnzoo.spec.errors import SpecError

FOLDER = definitions.FOLDER
FILES = sorted(FOLDER.glob("variants/*.yaml")) + sorted(FOLDER.glob("cells/*.yaml"))
TOY = Path(__file__).parent / "toy_cell" / "toy.yaml"


def schema(kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / "schemas" / f"{kind}.schema.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("path", [*FILES, TOY], ids=lambda path: path.stem)
def test_a_definition_fits_its_schema_and_its_file_name(path: Path) -> None:
    kind = "variant" if path.parent.name == "variants" else "cell"
    data = yaml.safe_load(path.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema(kind)).validate(data)
    assert data["name"] == path.stem


@pytest.mark.parametrize("kind", ["variant", "cell"])
def test_schemas_are_schemas_and_refuse_unknown_keys(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    data = yaml.safe_load(next(path for path in FILES if path.parent.name == f"{kind}s").read_text("utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "surplus": 1}, schema(kind))


def test_the_four_variants_and_the_cell_are_there() -> None:
    def topology(name: str) -> tuple[object, ...]:
        variant = definitions.load_variant(name)
        return variant.directions, variant.minimum_layers, variant.maximum_layers

    assert {name: topology(name) for name in definitions.variant_names()} == {
        "simple_rnn": (("forward",), 1, 1),
        "bi_rnn": (("forward", "backward"), 1, 1),
        "stacked_rnn": (("forward",), 2, None),
        "stacked_bi_rnn": (("forward", "backward"), 2, None),
    }  # fmt: skip
    assert definitions.cell_names() == ["rnn"]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(SpecError, match="unknown variant 'x': expected one of 'bi_rnn', 'simple_rnn'"):
        definitions.load_variant("x")
    with pytest.raises(SpecError, match=r"unknown cell '\.\./variants/bi_rnn': expected one of 'rnn'"):
        definitions.load_cell("../variants/bi_rnn")


def test_a_bias_chooses_the_parameters() -> None:
    cell = definitions.load_cell("rnn")
    assert list(cell.parameters_for("none")) == ["input_weight", "recurrent_weight"]
    assert list(cell.parameters_for("single")) == ["input_weight", "recurrent_weight", "bias"]
    assert list(cell.parameters_for("double")) == ["input_weight", "recurrent_weight", "input_bias", "recurrent_bias"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 2.0), ("-a", -2.0), ("a + b * 3", 11.0), ("(a + b) * 3", 15.0), ("a - b - 1", -2.0), ("b / a / 3", 0.5),
        ("max(a, b)", 3.0), ("p.i - a", 5.0), ("exp(0)", 1.0), ("--a", 2.0), ("f(-f(a))", -2.0),
    ],
)  # fmt: skip
def test_the_grammar_accepts_and_evaluates(text: str, value: float) -> None:
    functions = {"max": max, "exp": math.exp, "f": lambda x: x}
    assert expressions.compiled(expressions.parse(text))({"a": 2.0, "b": 3.0, "p.i": 7.0}, functions) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "a b", "a ** 2", "a % b", "a // b", "a if b else c", "lambda: a", "[a]", "(a, b)", "{}", "a[0]", "a < b",
        "a and b", "not a", "+a", "~a", "'a'", "0.5", "1e3", "True", "None", "1j", "...", "a := 1", "f(*a)", "f(x=a)",
        "f(a)(b)", "p.q.r", "f(a).b", "p.f(a)", "__import__('os')", "a; b", "a = b", "await a", "f'{a}'", "(yield)",
        "a\0", "(" * 5000 + "a" + ")" * 5000,
        "-" * 20_000 + "a", "a" + "+a" * 3000,
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_the_grammar_refuses_everything_else(text: str) -> None:
    with pytest.raises(SpecError, match="grammar"):
        expressions.parse(text)


def test_names_and_functions_of_an_expression_stand_in_reading_order() -> None:
    tree = expressions.parse("f(p.h + q.h) * max(h, 1) - (h @ w)")
    assert expressions.names(tree) == ["p.h", "q.h", "h", "h", "w"]
    assert expressions.functions(tree) == ["f", "max"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": {"h": "f(p.h + z)"}}, "step h: unknown 'z'"),
        ({"step": {"h": "f(p.z)"}}, "step h: unknown 'p.z'"),
        ({"step": {"h": "system(h)"}}, "step h: unknown 'system'"),
        ({"step": {"h": "late", "late": "h"}}, "step h: unknown 'late'"),
        ({"step": {"g": "h"}}, "the step gives no new value for 'h'"),
        ({"projections": {"none": {"p": "weight @ x", "q": "h"}}}, r"projection none\.p: unknown 'weight'"),
        ({"projections": {"none": {"p": "x", "q": "p.h"}}}, r"projection none\.q: unknown 'p\.h'"),
        ({"nonlinearities": {"tanh": "tanh(b)"}}, "nonlinearity tanh: unknown 'b'"),
        ({"output": "c"}, "output 'c' is not one of its states 'h'"),
    ],
)
def test_an_equation_that_reads_something_undefined_is_refused(change: dict[str, object], words: str) -> None:
    def parsed(value: object) -> object:
        if isinstance(value, dict):
            return {name: parsed(part) for name, part in value.items()}
        return expressions.parse(str(value))

    (key, value), = change.items()  # fmt: skip
    with pytest.raises(SpecError, match=words):
        dataclasses.replace(definitions.load_cell("rnn"), **{key: value if key == "output" else parsed(value)})


def test_a_step_may_name_helpers_before_it_uses_them() -> None:
    cell = dataclasses.replace(
        definitions.load_cell("rnn"),
        step={"g": expressions.parse("sigmoid(p.h)"), "h": expressions.parse("g * h + tanh(q.h)")},
    )
    assert list(cell.step) == ["g", "h"]


def test_every_clause_that_the_code_names_stands_in_the_spec(root: Path, source_files: list[Path]) -> None:
    prose = (root / "spec" / "SPEC.md").read_text("utf-8")
    clauses = set(re.findall(r"^#*\s*\**(\d+(?:\.\d+)*)\b", prose, re.MULTILINE))
    for path in source_files:
        if path.suffix in (".py", ".yaml", ".json", ".md") and path.parts[0] != "tests":
            for clause in cited(" ".join((root / path).read_text("utf-8").split())):
                assert clause in clauses, f"{path} names SPEC.md, {clause}, which does not exist"


def cited(text: str) -> set[str]:
    """Clauses named as `SPEC.md, 3.2`, `SPEC.md, 9 to 11`, `SPEC.md, 6 and 7`, `SPEC.md, section 3`."""
    number = r"\d+(?:\.\d+)*"
    found = set()
    for start, word, end in re.findall(rf"SPEC\.md, (?:section )?({number})(?: (to|and) ({number}))?", text):
        found |= {start, end} - {""}
        if word == "to" and "." not in start + end:
            found |= {str(between) for between in range(int(start), int(end))}
    return found


def test_cited_clauses_are_found() -> None:
    assert cited("(SPEC.md, 9 to 11) and (SPEC.md, 3.2). SPEC.md, 6 and 7; SPEC.md, section 2") == {
        "9", "10", "11", "3.2", "6", "7", "2",
    }  # fmt: skip
