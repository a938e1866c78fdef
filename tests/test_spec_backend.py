"""Backends are found by name, and each way not to find one says what to do."""

import inspect
import re
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnzoo.conformance import conformance_tests
from rnnzoo.spec import Backend, Result, backend, backend_names, load_backend
from rnnzoo.spec.errors import BackendError

# Refuses to import the packages named in BLOCKED, as where they are not installed.
BLOCKER = """
import importlib.abc, os, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["BLOCKED"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


class Whole:
    """Has every required part."""

    name = "mine"

    def supports(self, spec): ...
    def build(self, spec, seed=0, dtype="float32"): ...
    def run(self, model, inputs, lengths=None, initial_state=None, *, mask=None, context=None): ...
    def to_spec(self, model): ...
    def from_spec(self, model, weights, *, cast=False): ...


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An outside module `outside_backends`."""
    module = types.ModuleType("outside_backends")
    module.OBJECT, module.Whole, module.nested = Whole(), Whole, types.SimpleNamespace(OBJECT=Whole())
    module.PARTLY = types.SimpleNamespace(name="partly", supports=None, build=None, run=None)
    monkeypatch.setitem(sys.modules, "outside_backends", module)
    return module


def test_the_numpy_backend_is_found_and_fits_the_protocol() -> None:
    found = load_backend("numpy")
    assert isinstance(found, Backend) and found.name == "numpy"
    assert isinstance(found, backend.Differentiates) and isinstance(found, backend.Trains)
    assert isinstance(found.files, backend.Files)
    assert load_backend("numpy") is found


def test_methods_take_the_arguments_of_the_protocol() -> None:
    found = load_backend("numpy")
    for protocol in (Backend, backend.Differentiates, backend.Trains):
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_"):
                wanted = list(inspect.signature(method).parameters)[1:]
                wanted += ["recompute"] if name == "build" and found.recomputes else []
                assert list(inspect.signature(getattr(found, name)).parameters) == wanted, name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        BackendError, match=r"unknown backend 'jaxx': known are 'numpy', 'tf', 'torch'.*package\.module:OBJECT"
    ):
        load_backend("jaxx")
    assert backend_names() == ["numpy", "tf", "torch"]


@pytest.mark.parametrize(
    ("name", "blocked", "words"),
    [
        ("torch", "torch", "backend 'torch': the package 'torch' is not installed; run: pip install 'rnnzoo[torch]'"),
        ("tf", "tensorflow", "backend 'tf': the package 'tensorflow' is not installed; run: pip install 'rnnzoo[tf]'"),
        ("tf", "keras", "backend 'tf': the package 'keras' is not installed; run: pip install 'rnnzoo[tf]'"),
    ],
)
def test_a_missing_framework_says_which_extra_to_install(
    fresh_python: Callable[..., object], name: str, blocked: str, words: str
) -> None:
    process = fresh_python(
        BLOCKER + f"from rnnzoo.spec import load_backend, RnnZooError\n"
        f"try: load_backend({name!r})\nexcept RnnZooError as error: print(error)",
        BLOCKED=blocked,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == words


def test_another_missing_module_is_not_blamed_on_the_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backend.BuiltIn("no_such_folder", ("torch",), "torch")
    monkeypatch.setattr(backend, "BUILT_IN", {"numpy": row})
    with pytest.raises(ModuleNotFoundError, match="no_such_folder"):
        load_backend("numpy")


def test_an_outside_object_is_found_by_module_and_name(third_party: types.ModuleType) -> None:
    assert load_backend("outside_backends:OBJECT") is third_party.OBJECT
    assert load_backend("outside_backends:nested.OBJECT") is third_party.nested.OBJECT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("outside_backends:NOTHING", "cannot load 'outside_backends:NOTHING'.*expected 'package.module:OBJECT'"),
        ("no_such_package:OBJECT", "cannot load 'no_such_package:OBJECT': No module named 'no_such_package'"),
        (":OBJECT", "cannot load ':OBJECT'"),
        ("outside_backends:", "cannot load 'outside_backends:'"),
        (".relative:OBJECT", "cannot load '.relative:OBJECT'"),
        ("outside_backends:Whole", "expected an object, got the class Whole; name an instance of it"),
        ("outside_backends:PARTLY", "missing 'from_spec', 'to_spec'; required are name, supports, build"),
    ],
)  # fmt: skip
def test_an_outside_object_that_is_no_backend_is_refused(third_party: types.ModuleType, name: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        load_backend(name)


@pytest.mark.parametrize(("line", "words"), [
    ("raise KeyError('x')", r"KeyError: 'x' \(.*loads_badly.py, line 2\)"),
    ("raise SystemExit('no licence')", r"SystemExit: no licence \(.*loads_badly.py, line 2\)"),
])  # fmt: skip
def test_what_a_module_does_while_it_is_loaded_is_told_with_its_line(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loads_badly.py").write_text(f"import os\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=words):
        load_backend("loads_badly:OBJECT")


TYPING_ERRORS = [
    ({"takes": ("lenghts",)}, "takes: expected a list out of 'initial_state', .*'lenghts' is nearest to 'lengths'"),
    ({"takes": "lengths"}, "takes: expected a list out of .*, got 'lengths'$"),
    ({"dtypes": ("float_32",)}, "dtypes: expected a list out of 'float32', 'float64', got .*nearest to 'float32'"),
    ({"dtypes": (np.float32,)}, "dtypes: expected a list out of .*, got .*numpy.float32"),
    ({"dtype": ("float32",)}, "expected the optional parts .*, got 'dtype' .*nearest to 'dtypes'.*rename it"),
    ({"gradient": print}, "got 'gradient' .*nearest to 'gradients'"),
    ({"encoder_decoder": True}, "got 'encoder_decoder' .*nearest to 'encoder_decoders'"),
    ({"hold_weights": False}, "got 'hold_weights' .*nearest to 'holds_weights'"),
    ({"holds_weights": "no"}, "holds_weights: expected True or False, got 'no'"),
    ({"gradients": None}, "gradients: expected a method, got None; or leave it out"),
    ({"dtypes": ()}, r"dtypes: expected a list out of 'float32', 'float64', got \(\)"),
    ({"file": load_backend("numpy").files}, "got 'file' .*nearest to 'files'"),
    ({"dtypes": ["flaot46"]}, "dtypes: expected .*'flaot46' is nearest to 'float64'"),
    ({"name": None}, "name: expected a text, got None"),
]  # fmt: skip


@pytest.mark.parametrize("by", ["package.module:OBJECT", "entry point", "conformance_tests"])
@pytest.mark.parametrize(("declared", "words"), TYPING_ERRORS, ids=lambda value: str(value)[:24])
def test_a_typing_error_in_what_a_backend_declares_is_refused_by_name(
    by: str, declared: dict[str, Any], words: str, third_party: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    vars(third_party.OBJECT).update(declared)
    point = metadata.EntryPoint("mine", "outside_backends:OBJECT", backend.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    load = conformance_tests if by == "conformance_tests" else load_backend
    with pytest.raises(BackendError, match=words) as error:
        load("mine" if by == "entry point" else "outside_backends:OBJECT")
    assert str(error.value).startswith("backend '") and "\n" not in str(error.value)


def test_a_typing_error_beside_what_is_inherited_is_refused_too(third_party: types.ModuleType) -> None:
    class Base(Whole):
        dtypes = ("float32",)

    class Both(Base):
        dtype, dtypes = "f4", ("float32",)

    third_party.OBJECT = Both()
    assert load_backend("outside_backends:OBJECT") is third_party.OBJECT
    third_party.OBJECT = type("Typo", (Base,), {"dtype": ("float64",)})()
    with pytest.raises(BackendError, match=r"got 'dtype' .*nearest to 'dtypes'"):
        load_backend("outside_backends:OBJECT")


@pytest.mark.parametrize("part", ["name", "run", "gradients", "dtypes", "holds_weights", "files"])
@pytest.mark.parametrize("line", ["raise RuntimeError('no device')", "raise SystemExit('no device')", "self.devcie"])
def test_a_part_that_cannot_be_read_is_told_with_its_line(part: str, line: str, third_party: types.ModuleType) -> None:
    exec(compile(f"@property\ndef part(self):\n    {line}", "/their/file.py", "exec"), made := {})
    third_party.OBJECT = type("Unread", (Whole,), {part: made["part"]})()
    with pytest.raises(BackendError) as error:
        load_backend("outside_backends:OBJECT")
    assert str(error.value).startswith(f"backend 'outside_backends:OBJECT', {part}: expected a part that can be read")
    assert re.search(r"(no device|no attribute 'devcie') \(/their/file.py, line 3\)$", str(error.value))


def test_a_part_may_be_absent_of_some_objects_alone(third_party: types.ModuleType) -> None:
    class Sometimes(Whole):
        @property
        def gradients(self):
            raise AttributeError("not on this device")

    third_party.OBJECT = Sometimes()
    assert load_backend("outside_backends:OBJECT") is third_party.OBJECT


def test_a_name_that_resembles_a_part_and_cannot_be_read_is_the_backends_own(third_party: types.ModuleType) -> None:
    third_party.OBJECT = type("Unread", (Whole,), {"dtype": property(lambda self: 1 / 0)})()
    assert load_backend("outside_backends:OBJECT") is third_party.OBJECT


def test_a_required_part_with_a_typing_error_is_told_beside_it(third_party: types.ModuleType) -> None:
    third_party.PARTLY.from_specs = print
    with pytest.raises(BackendError, match=r"missing 'from_spec', .*\('from_spec' is nearest to 'from_specs'\)"):
        load_backend("outside_backends:PARTLY")


def test_names_that_resemble_nothing_declared_are_the_backends_own(third_party: types.ModuleType) -> None:
    vars(third_party.OBJECT).update(version="1", device="cpu", train=print, data_type="f4", _dtype="x", type=print)
    vars(third_party.OBJECT).update(
        file="x", dtype="f4", gradient=np.zeros(3), trainers=4, hold_weights="no", take=print
    )
    assert load_backend("outside_backends:OBJECT") is third_party.OBJECT


def test_an_entry_point_is_a_name_of_its_own(third_party: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {"mine": "OBJECT", "broken": "NOTHING", "half": "PARTLY"}
    points = [metadata.EntryPoint(name, f"outside_backends:{o}", backend.ENTRY_POINTS) for name, o in objects.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == backend.ENTRY_POINTS else [])
    assert backend_names() == ["broken", "half", "mine", "numpy", "tf", "torch"]
    assert load_backend("mine") is third_party.OBJECT
    with pytest.raises(BackendError, match="backend 'broken': cannot load 'outside_backends:NOTHING'"):
        load_backend("broken")
    with pytest.raises(BackendError, match="backend 'half': missing 'from_spec', 'to_spec'"):
        load_backend("half")
    with pytest.raises(BackendError, match="known are 'broken', 'half', 'mine', 'numpy'"):
        load_backend("other")


def test_a_result_names_its_arrays() -> None:
    result = Result(np.ones((2, 3, 4), np.float32), {"c": np.zeros((1, 2, 4)), "h": np.ones((1, 2, 4))}, None)
    assert result.final_state is result.final_states["c"]
    named = result.arrays()
    assert list(named) == ["outputs", "final_state.c", "final_state.h"]
    assert named["outputs"] is result.outputs and named["final_state.c"] is result.final_state
    assert "scores" in Result(result.outputs, result.final_states, np.ones((2, 5))).arrays()
