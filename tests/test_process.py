"""Implementations in any language: what is said, what is believed, and every way to fail of a process."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rnnzoo.conformance.items import items
from rnnzoo.conformance.outcomes import run
from rnnzoo.conformance.process import ProcessBackend
from rnnzoo.spec import EncoderDecoderSpec, ModelSpec, load_backend, parameters
from rnnzoo.spec.errors import BackendError, UnsupportedError

CONFORMANCE = Path(__file__).parents[1] / "conformance"
PAGE = (CONFORMANCE / "PROTOCOL.md").read_text(encoding="utf-8")
EXAMPLE = CONFORMANCE / "adapters" / "node" / "simple_rnn.mjs"
NODE = pytest.mark.skipif(shutil.which("node") is None, reason="no program `node` on the PATH")
SPEC = ModelSpec("simple_rnn", input_size=2, hidden_size=3)
INPUTS = np.ones((1, 4, 2))
RESULTS = {"outputs": [1, 4, 3], "final_state.h": [1, 1, 3]}

# A program that answers with zeros, until `run` of the code below it does something else, once.
PROGRAM = r"""
import json, math, os, signal, struct, subprocess, sys, time
FOLDER, RESULTS = @FOLDER@, @RESULTS@
STARTED = {"name": "zeros", "version": "1", "language": "Python"}
DECLARED = {
    "dtypes": ["float64"], "cells": ["rnn"], "variants": ["simple_rnn", "bi_rnn"], "nonlinearities": ["tanh"],
    "biases": ["single"], "merges": ["sum"], "heads": [], "parts": [], "takes": [], "gives": ["results"],
}
def say(text): os.write(1, text if isinstance(text, bytes) else text.encode())
def answer(seq, **what): say(json.dumps({"seq": seq, **what}) + "\n")
def log(name, text):
    with open(f"{FOLDER}/{name}", "a") as file: file.write(text + "\n")
def header(path):
    with open(path, "rb") as file: return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
def good(seq, request, shapes=RESULTS, dtype="F64", width=8, number=0.0, cut=0, claimed=None):
    found, data = {}, b""
    for name, shape in shapes.items():
        begin, data = len(data), data + struct.pack("<d", number)[:width] * math.prod(shape)
        found[name] = {"dtype": dtype, "shape": claimed or shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(found).encode()
    data = struct.pack("<Q", len(text)) + text + data
    with open(request["write"], "wb") as file: file.write(data[:len(data) - cut])
    answer(seq, result={})
def run(seq, request): good(seq, request)
def stop(): sys.exit()
def start(seq): answer(seq, result=STARTED)
@CODE@
def once(seq, request):
    first = not os.path.exists(f"{FOLDER}/failed")
    log("failed", "")
    (run if first else good)(seq, request)
log("pids", str(os.getpid()))
for line in sys.stdin:
    request = json.loads(line)
    log("requests", line.strip())
    seq, command = request["seq"], request["command"]
    if command == "start": start(seq)
    if command == "describe": answer(seq, result=DECLARED)
    if command == "run": log("names", " ".join(header(request["read"]))); once(seq, request)
    if command == "stop": stop()
"""
Start = Callable[..., ProcessBackend]


def script(folder: Path, code: str, results: Any = RESULTS) -> list[str]:
    """The command of that program with the code in it."""
    text = PROGRAM.replace("@FOLDER@", repr(str(folder))).replace("@RESULTS@", repr(results)).replace("@CODE@", code)
    (folder / "program.py").write_text(text)
    return [sys.executable, "-I", "-S", str(folder / "program.py")]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`start(code)` is the backend of that program."""
    return lambda code="", timeout=30.0, **more: ProcessBackend(script(tmp_path, code, **more), timeout)


def result(backend: ProcessBackend, **given: Any) -> np.ndarray:
    return backend.run(backend.build(SPEC, dtype="float64"), INPUTS, **given).outputs


def logged(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()


# --- failures ---

FAILURES = {
    "exit": ("print('the last words', file=sys.stderr); sys.exit(3)", "with exit status 3; .*:\nthe last words"),
    "traceback": ("1 / 0", "with exit status 1(?s:.*)ZeroDivisionError"),
    "signal": ("os.kill(os.getpid(), signal.SIGSEGV)", r"with signal 11 \(Segmentation fault\)"),
    "words after the output": ("os.close(1); time.sleep(0.2); 1 / 0", "with exit status 1(?s:.*)ZeroDivisionError"),
    "exit with a child that holds the output": (
        "subprocess.Popen(['sleep', '60'], stderr=subprocess.DEVNULL); os._exit(4)",
        "with exit status 4",
    ),
    "exit in the middle of a line": ("say('{'); os._exit(5)", "with exit status 5"),
    "no JSON": ("say('loaded!\\n')", "b'loaded!'; a log belongs on the standard error"),
    "no UTF-8": ("say(b'\\xff\\xfe\\n')", "got b'.xff"),
    "an empty line": ("say('\\n')", "got b''"),
    "deep JSON": ("say('[' * 10**5 + '\\n')", r"got b'\[\[\[\["),
    "a list": ("say('[1, 2]\\n')", r"got b'\[1, 2\]'"),
    "no result": ("answer(seq)", "got b'"),
    "two results": ("answer(seq, result={}, error='e')", "got b'"),
    "a result that is no object": ("answer(seq, result=1)", "got b'"),
    "an error without words": ("answer(seq, error='')", "got b'"),
    "another seq": ("answer(seq - 1, result={})", 'expected {"seq": 3, "result"'),
    "a seq that is no integer": ("answer(float(seq), result={})", "got b'"),
    "no seq": ('say(\'{"result": {}, "x": 1}\\n\')', "got b'"),
    "a line without end": ("while True: say('x' * 2**16)", "a line of at most 1048576 bytes"),
    "no file": ("answer(seq, result={})", "found.safetensors: no such file"),
    "a folder": ("os.mkdir(request['write']); answer(seq, result={})", "expected a file, got a folder"),
    "a pipe": ("os.mkfifo(request['write']); answer(seq, result={})", "got a device or a pipe"),
    "an empty file": ("open(request['write'], 'w').close(); answer(seq, result={})", "expected a whole safetensors"),
    "a truncated file": ("good(seq, request, cut=9)", "expected a whole safetensors file"),
    "a lying file": ("good(seq, request, claimed=[2**40])", "expected a whole safetensors file"),
    "a missing name": ("good(seq, request, {'outputs': [1, 4, 3]})", "missing 'final_state.h'"),
    "a surplus name": ("good(seq, request, {**RESULTS, 'x\\x1b': [1]})", "surplus 'x\\\\x1b'"),
    "another dtype": ("good(seq, request, dtype='I64')", "outputs: expected F64 .*got I64"),
    "a dtype that NumPy lacks": ("good(seq, request, dtype='F8_E4M3', width=1)", "outputs: expected F64 .*got F8"),
    "another shape": (
        "good(seq, request, {**RESULTS, 'outputs': [4, 1, 3]})",
        r"F64 of shape \(1, 4, 3\), got F64 of \(4,",
    ),
}


@pytest.mark.parametrize("code, words", FAILURES.values(), ids=FAILURES)
def test_a_failure_is_reported_and_the_next_run_succeeds(start: Start, code: str, words: str):
    backend = start(f"def run(seq, request):\n  {code}")
    with pytest.raises(BackendError, match=words):
        result(backend)
    assert not result(backend).any()


SLOW = {
    "a hang": ("time.sleep(60)", "expected an answer within 1 s, got none"),
    "a drip": ("while True: say(' '); time.sleep(0.05)", "expected an answer within 1 s, got none"),
    "a closed output": ("os.close(1); time.sleep(60)", "it closed its standard output and ran on"),
    "noise without an answer": ("while True: print('n', file=sys.stderr)", "expected an answer within 1 s, got none"),
}


@pytest.mark.parametrize("code, words", SLOW.values(), ids=SLOW)
def test_waiting_has_an_end(start: Start, code: str, words: str):
    backend = start(f"def run(seq, request):\n  {code}", timeout=1.0)
    began = time.monotonic()
    with pytest.raises(BackendError, match=words):
        result(backend)
    assert time.monotonic() - began < 10
    assert not result(backend).any()


AFTERWARDS = {
    "ends": ("good(seq, request); sys.exit()", "with exit status 0"),
    "closes its input": ("os.close(0); good(seq, request); time.sleep(60)", "it closed its standard input and ran on"),
    "says more": ("good(seq, request); say('done\\n')", "got b'done'"),
}


@pytest.mark.parametrize("code, words", AFTERWARDS.values(), ids=AFTERWARDS)
def test_a_failure_after_an_answer_is_that_of_the_next_request(start: Start, code: str, words: str):
    backend = start(f"def run(seq, request):\n  {code}", timeout=1.0)
    assert not result(backend).any()
    with pytest.raises(BackendError, match=words):
        result(backend)
    assert not result(backend).any()


def test_a_program_that_cannot_be_started_is_refused():
    for command in (["/no/such/program"], [str(CONFORMANCE)], [], ["a\0b"]):
        with pytest.raises(BackendError, match="cannot be started"):
            ProcessBackend(command)


def test_a_hanging_program_is_killed_with_its_children(start: Start, tmp_path: Path):
    backend = start(
        "def run(seq, request):\n"
        "  import fcntl\n"
        "  file = open(f'{FOLDER}/lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "  subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()]).wait()",
        timeout=1.0,
    )
    with pytest.raises(BackendError):
        result(backend)
    with (tmp_path / "lock").open() as file:
        _until(lambda: _locked(file))


def _locked(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_flood_on_the_standard_error_blocks_nothing_and_is_not_kept(start: Start):
    backend = start("def run(seq, request):\n  sys.stderr.write('noise\\n' * 10**6); good(seq, request)")
    tracemalloc.start()
    assert not result(backend).any()
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_the_last_words_are_short_and_hold_no_control_characters(start: Start):
    backend = start("def run(seq, request):\n  sys.stderr.write('x' * 10**5 + '\\x1b[31mlast\\0'); sys.exit(1)")
    with pytest.raises(BackendError) as caught:
        result(backend)
    assert str(caught.value).endswith("x\N{REPLACEMENT CHARACTER}[31mlast\N{REPLACEMENT CHARACTER}")
    assert len(str(caught.value)) < 3000


def test_what_a_program_reports_does_not_end_it(start: Start, tmp_path: Path):
    backend = start("def run(seq, request): answer(seq, error='x' * 10**5 + 'no memory left')")
    with pytest.raises(BackendError, match=r"run: it reports: x+no memory left") as caught:
        result(backend)
    assert len(str(caught.value)) < 3000
    assert not result(backend).any()
    assert len(logged(tmp_path, "pids")) == 1


def test_nan_is_a_value(start: Start):
    assert np.isnan(result(start("def run(seq, request): good(seq, request, number=math.nan)"))).all()


def test_the_files_are_deleted_after_each_run_and_after_a_failure(start: Start, tmp_path: Path):
    backend = start("def run(seq, request): os._exit(1)")
    with pytest.raises(BackendError):
        result(backend)
    result(backend)
    folders = [Path(json.loads(line)["read"]).parent for line in logged(tmp_path, "requests") if '"read"' in line]
    assert len(folders) == 2 and not any(folder.exists() for folder in folders)


# --- the end ---


def test_a_program_is_asked_to_stop(start: Start, tmp_path: Path):
    backend = start("def stop(): log('stopped', ''); sys.exit()")
    backend.close()
    assert logged(tmp_path, "stopped") == [""]
    assert not result(backend).any()  # it is started again
    del backend
    assert logged(tmp_path, "stopped") == ["", ""]


@pytest.mark.parametrize("code", ["", "def stop(): time.sleep(60)"], ids=["willing", "deaf"])
def test_nothing_is_left_when_the_interpreter_exits(tmp_path: Path, fresh_python: Any, code: str):
    made = fresh_python(
        "from rnnzoo.conformance.process import ProcessBackend\n"
        f"backend = ProcessBackend({script(tmp_path, code)!r}, timeout=1.0)",
        PYTHONWARNINGS="error",
    )
    assert (made.returncode, made.stderr) == (0, "")
    (number,) = logged(tmp_path, "pids")
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


# --- what a program says of itself ---

DECLARATIONS = {
    "dtypes": [], "cells": ["lstm"], "variants": "bi_rnn", "nonlinearities": [1], "takes": None, "gives": ["gradients"],
}  # fmt: skip


@pytest.mark.parametrize("key", DECLARATIONS)
def test_a_declaration_that_makes_no_sense_is_refused(start: Start, key: str):
    with pytest.raises(BackendError, match=f"describe, {key}: expected"):
        start(f"DECLARED[{key!r}] = {DECLARATIONS[key]!r}")


def test_a_declaration_has_all_keys_and_no_others(start: Start):
    with pytest.raises(BackendError, match=r"describe: missing 'takes'; surplus 'optimizers'$"):
        start("DECLARED['optimizers'] = DECLARED.pop('takes')")
    with pytest.raises(BackendError, match=r"surplus 'take' \('take' is nearest to 'takes'\)$"):
        start("DECLARED['take'] = DECLARED.pop('takes')")
    with pytest.raises(
        BackendError, match=r"takes: expected .*, got \['lenghts'\] \('lenghts' is nearest to 'lengths'"
    ):
        start("DECLARED['takes'] = ['lenghts']")


@pytest.mark.parametrize("name", ["", "../x", ".x", "a b", "x\n", 1])
def test_a_name_that_is_no_file_name_is_refused(start: Start, name: object):
    with pytest.raises(BackendError, match="start, name: expected"):
        start(f"STARTED['name'] = {name!r}")


def test_what_is_not_declared_is_not_supported(start: Start):
    backend = start("DECLARED['dtypes'] = ['float32']; DECLARED['takes'] = ['mask']")
    assert (backend.name, backend.version, backend.language) == ("zeros", "1", "Python")
    assert (backend.dtypes, backend.takes, hasattr(backend, "gradients")) == (("float32",), ("mask", "lengths"), False)
    assert backend.supports(SPEC) is None
    wanted = "zeros does not declare 'relu' among its nonlinearities, 'concat' among its merges"
    assert backend.supports(ModelSpec("bi_rnn", 2, 3, nonlinearity="relu")) == wanted
    with pytest.raises(UnsupportedError, match="computes in float32, not in float64"):
        result(backend)


@pytest.mark.parametrize(
    "takes, given, sent",
    [
        (["lengths", "mask"], {"lengths": [3]}, "lengths"),
        (["mask"], {"lengths": [3]}, "mask"),
        (["lengths", "mask"], {"mask": [[False, True, True, True]]}, "mask"),
        (["lengths"], {"mask": [[True, True, True, False]]}, "lengths"),
        (["lengths"], {"mask": [[False, True, True, True]]}, None),
        ([], {"lengths": [3]}, None),
        ([], {"lengths": [4]}, ""),
        (["initial_state"], {"initial_state": np.ones((1, 1, 3))}, "initial_state"),
        (["mask"], {"initial_state": np.ones((1, 1, 3))}, None),
    ],
)  # fmt: skip
def test_optional_arrays_are_sent_as_they_are_declared(
    start: Start, tmp_path: Path, takes: list[str], given: dict[str, Any], sent: str | None
):
    backend = start(f"DECLARED['takes'] = {takes}")
    if sent is None:
        with pytest.raises(UnsupportedError, match="zeros does not declare '"):
            result(backend, **given)
    else:
        result(backend, **given)
        known = {"inputs", *(parameter.name for parameter in parameters(SPEC))}
        assert " ".join(set(logged(tmp_path, "names")[0].split()) - known) == sent


# --- the page ---

SAID = [(side, json.loads(text)) for side, text in re.findall(r"^([<>]) (.*)$", PAGE, re.M)]
REQUESTS = [message for side, message in SAID if side == ">"]
ANSWERS = [message for side, message in SAID if side == "<"]


def page_arrays(file: str) -> dict[str, list[int]]:
    """Names and shapes in the page's example."""
    (row,) = re.findall(rf"^\| `{file}` \| (`\w.*\), .*) \|$", PAGE, re.M)
    return {name: [int(n) for n in shape.split(",")] for name, shape in re.findall(r"`([\w.]+)` \(([\d, ]+)\)", row)}


def page_run(backend: ProcessBackend) -> Any:
    model = backend.build(ModelSpec.from_json(json.dumps(REQUESTS[2]["spec"])), dtype=REQUESTS[2]["dtype"])
    B, T, I = page_arrays("read")["inputs"]  # noqa: E741
    return backend.run(model, np.ones((B, T, I)), [5, 0, 4, 1], np.ones((2, B, 3)))


def test_we_say_what_the_page_says(start: Start, tmp_path: Path):
    code = f"STARTED, DECLARED = {ANSWERS[0]['result']}, {ANSWERS[1]['result']}\n"
    code += "def run(seq, request): log('header', json.dumps(header(request['read']))); good(seq, request)"
    backend = start(code, results=page_arrays("write"))
    page_run(backend)
    backend.close()
    requests = logged(tmp_path, "requests")
    folder = str(Path(json.loads(requests[2])["read"]).parent)
    assert [json.loads(line.replace(folder, "FOLDER")) for line in requests] == REQUESTS
    header = json.loads(logged(tmp_path, "header")[0])
    assert {name: entry["shape"] for name, entry in header.items()} == page_arrays("read")


def test_we_understand_what_the_page_declares(start: Start):
    backend = start(f"STARTED, DECLARED = {ANSWERS[0]['result']}, {ANSWERS[1]['result']}")
    assert {"name": backend.name, "version": backend.version, "language": backend.language} == ANSWERS[0]["result"]
    assert {key: list(values) for key, values in backend.declared.items()} == ANSWERS[1]["result"]


@pytest.mark.parametrize("answer, error", [(ANSWERS[3], UnsupportedError), (ANSWERS[4], BackendError)])
def test_we_understand_what_the_page_declines(start: Start, answer: dict[str, Any], error: type[Exception]):
    with pytest.raises(error, match=answer.get("unsupported") or answer["error"]):
        result(start(f"def run(seq, request): say({json.dumps(answer)!r} + '\\n')"))


@NODE
def test_the_example_answers_what_the_page_says(tmp_path: Path):
    arrays = {name: np.ones(shape) for name, shape in page_arrays("read").items()}
    arrays["lengths"] = np.array([5, 0, 4, 1])
    safetensors.numpy.save_file(arrays, tmp_path / "given.safetensors")
    lines = "".join(json.dumps(request) + "\n" for request in REQUESTS).replace("FOLDER", str(tmp_path))
    with subprocess.Popen(["node", EXAMPLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(lines)
        process.stdin.flush()
        assert process.wait(60) == 0  # its input is still open
        assert [json.loads(line) for line in process.stdout] == ANSWERS[:3]
    found = safetensors.numpy.load_file(tmp_path / "found.safetensors")
    assert {name: list(array.shape) for name, array in found.items()} == page_arrays("write")


def test_the_paths_on_the_page_exist():
    assert f"node conformance/{EXAMPLE.relative_to(CONFORMANCE)}" in PAGE and EXAMPLE.is_file()


# --- whole implementations ---


@NODE
def test_the_example_passes_the_suite():
    backend = ProcessBackend(["node", str(EXAMPLE)])
    outcomes = [run(backend, item) for item in items(quick=True)]
    assert [(o.item.name, o.message) for o in outcomes if o.verdict == "failed"] == []
    assert {o.item.dtype for o in outcomes if (o.verdict, o.item.check) == ("passed", "results")} == {
        "float32",
        "float64",
    }
    backend.close()


OURS = """
import json, sys
import numpy as np
import safetensors.numpy as files
from rnnzoo.spec import ModelSpec, load_backend, parameters
numpy = load_backend("numpy")

def run(spec, dtype, give, read, write, **_):
    spec, given = ModelSpec.from_json(json.dumps(spec)), files.load_file(read)
    model = numpy.build(spec, dtype=dtype)
    numpy.from_spec(model, {p.name: given.pop(p.name) for p in parameters(spec)})
    inputs, cotangents = given.pop("inputs"), {n: given.pop(n) for n in list(given) if n.startswith("cotangent.")}
    wanted = [cotangents.pop(f"cotangent.{name}", None) for name in ("outputs", "final_state.h", "scores")]
    assert not cotangents
    if give == "results":
        found = numpy.run(model, inputs, **given).arrays()
    else:
        found = numpy.gradients(model, inputs, *wanted, **given)
    files.save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, write)
    return {}

for line in sys.stdin:
    request = json.loads(line)
    command = request["command"]
    if command == "stop":
        break
    result = STARTED if command == "start" else DECLARED if command == "describe" else run(**request)
    print(json.dumps({"seq": request["seq"], "result": result}), flush=True)
"""
ALL = {"heads": ["steps", "final"], "parts": ["embedding", "context"], "gives": ["results", "gradients"]}


def test_a_backend_of_ours_behind_a_process_computes_the_same_bits(tmp_path: Path):
    declared = ANSWERS[1]["result"] | ALL
    (tmp_path / "ours.py").write_text(f"STARTED, DECLARED = {ANSWERS[0]['result']}, {declared}\n{OURS}")
    there, here = ProcessBackend([sys.executable, "-P", str(tmp_path / "ours.py")]), load_backend("numpy")
    for case in {item.case for item in items(quick=True) if item.check == "gradients"}:
        if isinstance(case.spec, EncoderDecoderSpec):
            with pytest.raises(UnsupportedError, match="has no encoder-decoder models"):
                there.build(case.spec)
            continue
        assert everything(there, case) == everything(here, case)
    there.close()


def everything(backend: Any, case: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every bit of results and gradients."""
    model = backend.build(case.spec, dtype="float64")
    backend.from_spec(model, case.weights)
    found = backend.run(model, case.inputs, **case.arguments).arrays()
    wanted = (case.cotangents.outputs, case.cotangents.final_states, case.cotangents.scores)
    gradients = backend.gradients(model, case.inputs, *wanted, **case.arguments)
    return sorted((name, a.shape, a.tobytes()) for name, a in (*found.items(), *gradients.items()))
