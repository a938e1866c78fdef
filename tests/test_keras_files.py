"""Keras' files: what ours give back and to whom, and what hostile ones end in."""

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_models import (
    CAPTIONER,
    CLASSIFIER,
    DOUBLE,
    LAYERS,
    H,
    I,
    L,
    O,
    T,
    arrays,
    assert_gives_back,
    contents,
    edited,
    found,
    harmless,
    save,
    sequential,
    spec_of,
)

from rnnzoo.conformance.bounds import gradients, results
from rnnzoo.conformance.equivalence import random_arguments
from rnnzoo.spec import Contents, Embedding, Head, ModelSpec, load_backend, sandbox
from rnnzoo.spec.errors import FileError, UnsupportedError, WeightError
from rnnzoo.spec.found import Hints
from rnnzoo.spec.inputs import Cotangents, checked_inputs
from rnnzoo.spec.parts import StoredWeights
from rnnzoo.tf_impl import Recurrent, SequenceModel, examining, files
from rnnzoo.tf_impl.files import FILES
from rnnzoo.tf_impl.plain import BACKEND as PLAIN

# Keras 3.15 hands its variables to NumPy 2.4 in the old way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files apart here, as a child process takes a second; tests with `sandbox` in their names have one."""
    if "sandbox" not in request.node.name:
        monkeypatch.setattr(files, "examined", lambda _, path: json.loads(json.dumps(examining.examine(path))))


# Our own files


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("spec", [DOUBLE, CLASSIFIER, CAPTIONER], ids=lambda spec: spec.variant)
def test_files_hold_every_bit(spec: ModelSpec, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    for dtype in ("float32", "float64"):
        written = contents(spec, dtype)
        FILES.write(path, written)
        assert FILES.find(path).provenance == {"by": "a test"} and FILES.find(path).spec == spec
        assert_gives_back(path, written)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_the_same_contents_are_the_same_bytes_at_any_time(suffix: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        FILES.write(tmp_path / f"{name}{suffix}", contents(CLASSIFIER))
        time.sleep(1.1)  # HDF5 counts seconds
    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_written_files_are_keras_own(tmp_path: Path) -> None:
    written = contents(CLASSIFIER)
    FILES.write(tmp_path / "model.keras", written)
    FILES.write(tmp_path / "model.weights.h5", written)
    model, other = keras.saving.load_model(tmp_path / "model.keras"), SequenceModel(CLASSIFIER, dtype="float64")
    other.load_weights(tmp_path / "model.weights.h5")
    for each in (model, other):
        again = load_backend("tf").to_spec(each)
        assert all(np.array_equal(again[key], written.weights[key]) for key in written.weights)


def test_what_keras_saved_of_ours_is_found(tmp_path: Path) -> None:
    model = SequenceModel(CLASSIFIER, seed=2)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.ones((2, T), int), np.array([0, 1]), verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    expected = Contents(CLASSIFIER, load_backend("tf").to_spec(model), {})
    assert_gives_back(tmp_path / "model.keras", expected)
    assert_gives_back(tmp_path / "model.weights.h5", expected, Hints(CLASSIFIER))
    assert any(name.startswith("optimizer/") for name in FILES.find(tmp_path / "model.keras").rest)
    with pytest.raises(WeightError, match=r"surplus .*'embedding/vars/0'"):
        FILES.find(tmp_path / "model.weights.h5", Hints(DOUBLE))


def test_our_layer_in_somebodys_model_is_found(tmp_path: Path) -> None:
    layer = Recurrent(DOUBLE, seed=4)
    path = save(sequential(layer, L.Dense(2)), tmp_path / "model.keras")
    assert spec_of(found(path)[layer.name]) == DOUBLE
    expected = list(load_backend("tf").to_spec(layer).values())
    assert all(np.array_equal(*pair) for pair in zip(arrays(found(path)[layer.name]), expected, strict=True))


# Files of Keras' standard layers

PLAIN_SPECS = [
    ModelSpec("simple_rnn", I, H, nonlinearity="relu"),
    ModelSpec("bi_rnn", I, H, nonlinearity="sigmoid", merge="sum", bias="none"),
    ModelSpec("stacked_rnn", I, H, 12, head=Head(O)),
    ModelSpec("stacked_bi_rnn", I, H, 2, merge="average", embedding=Embedding(7), head=Head(O)),
    ModelSpec("stacked_bi_rnn", I, H, 2, nonlinearity="identity", merge="multiply", head=Head(O, False, "final")),
    CLASSIFIER,
]
WITHOUT_RNNZOO = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rnnzoo":
            raise ImportError("blocked")
sys.meta_path.insert(0, Blocked())
import numpy, keras
for number in range(int(sys.argv[1])):
    model = keras.saving.load_model(f"{number}.keras")
    numpy.save(f"{number}.npy", model(numpy.load(f"{number}.inputs.npy")))
    model.load_weights(f"{number}.weights.h5")
"""


def test_plain_files_load_and_run_without_this_package(tmp_path: Path, assert_right: Callable[..., None]) -> None:
    inputs = [random_arguments(spec)["inputs"] for spec in PLAIN_SPECS]
    for number, spec in enumerate(PLAIN_SPECS):
        for suffix in (".keras", ".weights.h5"):
            FILES.write(tmp_path / f"{number}{suffix}", contents(spec), plain=True)
            assert_gives_back(tmp_path / f"{number}{suffix}", contents(spec))
        np.save(tmp_path / f"{number}.inputs.npy", inputs[number])
    command = [sys.executable, "-I", "-c", WITHOUT_RNNZOO, str(len(PLAIN_SPECS))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for number, spec in enumerate(PLAIN_SPECS):
        given = checked_inputs(spec, "float64", inputs[number])
        quantity = "scores" if spec.head else "outputs"
        assert_right({quantity: np.load(tmp_path / f"{number}.npy")}, results(spec, contents(spec).weights, given))


@pytest.mark.parametrize("spec", PLAIN_SPECS, ids=lambda spec: f"{spec.variant} {spec.merge}")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_loaded_plain_files_are_the_spec_itself(
    spec: ModelSpec, suffix: str, tmp_path: Path, assert_right: Callable[..., None]
) -> None:
    path, written = tmp_path / f"model{suffix}", contents(spec)
    FILES.write(path, written, plain=True, prefix="translator." if suffix == ".keras" else "")
    model = PLAIN.loaded(path, spec)
    assert PLAIN.owns(model) and PLAIN.spec_of(model) == spec
    weights = PLAIN.to_spec(model)
    assert all(np.array_equal(weights[name], array) for name, array in written.weights.items())
    for left_out in ((), ("initial_state",), ("initial_state", "lengths")):
        arguments = {name: value for name, value in random_arguments(spec).items() if name not in left_out}
        given = checked_inputs(spec, "float64", **arguments)
        assert_right(PLAIN.run(model, **arguments).arrays(), results(spec, written.weights, given))


@pytest.mark.parametrize("spec", PLAIN_SPECS, ids=lambda spec: f"{spec.variant} {spec.merge}")
def test_gradients_of_plain_layers_are_right(spec: ModelSpec, assert_right: Callable[..., None]) -> None:
    model, arguments = PLAIN.build(spec, seed=3, dtype="float64"), random_arguments(spec)
    given, result = checked_inputs(spec, "float64", **arguments), PLAIN.run(model, **arguments)
    random_like = np.random.default_rng(0).normal
    scores = None if result.scores is None else random_like(size=result.scores.shape)
    states = {name: random_like(size=state.shape) for name, state in result.final_states.items()}
    cotangents = Cotangents(random_like(size=result.outputs.shape), states, scores)
    slopes = PLAIN.gradients(
        model, arguments["inputs"], cotangents.outputs, states, scores,
        lengths=arguments["lengths"], initial_state=arguments["initial_state"],
    )  # fmt: skip
    assert_right(slopes, gradients(spec, PLAIN.to_spec(model), given, cotangents))


def test_somebodys_layers_and_models_run_as_they_are(assert_right: Callable[..., None]) -> None:
    models = [make() for make, _ in LAYERS.values()]
    models.append(sequential(L.SimpleRNN(H, return_sequences=True), L.Dropout(0.5), L.SimpleRNN(H), L.Dense(O)))
    models.append(keras.Sequential([L.Embedding(7, I), L.Bidirectional(L.SimpleRNN(H))]))
    for model in models:
        model.build(
            (None, None)
            if isinstance(model.layers[0] if hasattr(model, "layers") else 0, L.Embedding)
            else (None, None, I)
        )
        spec, dtype = PLAIN.spec_of(model), str(model.weights[0].dtype)
        arguments = random_arguments(spec)
        given = checked_inputs(spec, dtype, **arguments)
        assert_right(PLAIN.run(model, **arguments).arrays(), results(spec, PLAIN.to_spec(model), given), dtype)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sequential(L.SimpleRNN(H), L.Dense(2), L.Dense(2)), "Dense"),
        (lambda: sequential(L.SimpleRNN(H), L.Dense(2, "softmax")), "without an activation"),
        (lambda: sequential(L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(6)), "one stack"),
        (lambda: sequential(L.Dense(2)), "recurrent layers"),
        (lambda: keras.Sequential([L.Embedding(7, I, mask_zero=True), L.SimpleRNN(H)]), "mask_zero"),
        (lambda: L.SimpleRNN(H), "no weights yet"),
    ],
)
def test_models_that_no_spec_describes_are_refused(make: Callable[[], Any], reason: str) -> None:
    model = make()
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, None))
    with pytest.raises(UnsupportedError, match=reason):
        PLAIN.spec_of(model)


def test_what_standard_layers_lack_is_refused_by_name(tmp_path: Path) -> None:
    for spec, reason in ((CAPTIONER, "context"), (DOUBLE, "one bias")):
        assert reason in str(FILES.holds(spec, plain=True)) and FILES.holds(spec) is None
        with pytest.raises(UnsupportedError, match=reason):
            FILES.write(tmp_path / "model.keras", contents(spec), plain=True)
    with pytest.raises(UnsupportedError, match="older"):
        FILES.write(tmp_path / "model.h5", contents(CLASSIFIER))
    assert not PLAIN.owns(SequenceModel(CLASSIFIER)) and not PLAIN.owns(np)


# Hostile files


def test_nothing_that_a_file_names_is_made_or_imported(tmp_path: Path, fresh_python: Any) -> None:
    path, trap = harmless(tmp_path / "model.keras"), tmp_path / "empty" / "trap.py"
    layer = {"module": "trap", "class_name": "Trap", "config": {}, "registered_name": "trap>Trap"}
    code = {"class_name": "__lambda__", "config": {"value": "4wEAAAAA"}}

    def change(text: bytes) -> bytes:
        config = json.loads(text)
        config["config"]["layers"].insert(1, layer)
        config["config"]["layers"].append(
            {"module": "keras.layers", "class_name": "Lambda", "config": {"function": code}}
        )
        config["module"], config["config"]["layers"][2]["config"]["activation"] = "trap", code | {"module": "trap"}
        return json.dumps(config).encode()

    edited(path, change)
    trap.write_text("raise SystemExit('the trap was imported')")
    done = fresh_python(
        f"from rnnzoo.tf_impl.files import FILES; from pathlib import Path; import sys; sys.path.insert(0, '.');"
        f"[layer] = FILES.find(Path({str(path)!r})).layers; print(layer.refusal);"
        "print([name for name in sys.modules if name.partition('.')[0] in ('keras', 'tensorflow', 'h5py', 'trap')])"
    )
    assert done.returncode == 0, done.stderr
    assert "activation" in done.stdout and done.stdout.endswith("[]\n") and "trap was" not in done.stdout


def traversal(archive: zipfile.ZipFile) -> None:
    archive.writestr("../escape", "x")


def symbolic_link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("assets")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def second_member(archive: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")


def text_bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("rnnzoo.json", bytes(2**25), zipfile.ZIP_DEFLATED)


def deep_text(archive: zipfile.ZipFile) -> None:
    archive.writestr("rnnzoo.json", "[" * 100_000)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (traversal, "inside the archive"),
        (symbolic_link, "got a link"),
        (second_member, "one name"),
        (text_bomb, "at most"),
        (deep_text, "rnnzoo"),
    ],
)
def test_archives_made_to_do_harm_are_refused(
    attack: Callable[[zipfile.ZipFile], None], reason: str, tmp_path: Path
) -> None:
    path = harmless(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive:
        attack(archive)
    with pytest.raises(FileError, match=rf"model\.keras.*{reason}"):
        FILES.find(path)


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**27))
    with pytest.raises(FileError, match="compressed; save the model with Keras"):
        FILES.find(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"model.weights.h5") - 46
    start = int.from_bytes(data[data.index(b"PK\x01\x02") + 42 :][:4], "little")
    data[entry + 42 : entry + 46] = start.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"model\.keras"):
        FILES.find(path)


def test_damaged_weights_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    place = found(path)["rnn"].parts["layers.0.forward.bias"].tensor.offset
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="another checksum"):
        FILES.find(path)


def nested(depth: int, children: int = 1) -> bytes:
    layer: dict[str, Any] = {"class_name": "Dense", "config": {}}
    for _ in range(depth):
        layer = {"class_name": "Sequential", "config": {"layers": [layer] * children}}
    return json.dumps(layer).encode()


@pytest.mark.parametrize(
    "config",
    [b"{", b"[" * 10**6, b"\xff", nested(80), nested(1, 250_000)],
    ids=["cut", "deep", "text", "levels", "objects"],
)
def test_configurations_made_to_do_harm_are_refused(config: bytes, tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    edited(path, lambda _: config)
    with pytest.raises(FileError, match=r"model\.keras"):
        FILES.find(path)


@pytest.mark.parametrize("config", [b"", b"[]", b'{"class_name": "Sequential", "config": NaN}', b'{"class_name": 1}'])
def test_configurations_that_tell_nothing_leave_the_weights(config: bytes, tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    edited(path, lambda _: config)
    assert found(path)["rnn"].assumed == ("nonlinearity",)


def external_link(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.ExternalLink(str(secret), "/data")


def soft_link(file: Any, group: Any, secret: Path) -> None:
    file["elsewhere"] = group["0"][()]
    del group["0"]
    group["0"] = h5py.SoftLink("/elsewhere")


def soft_link_loop(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.SoftLink("0")


def hard_link_loop(file: Any, group: Any, secret: Path) -> None:
    group["loop"] = group
    group["again"] = group


def second_name(file: Any, group: Any, secret: Path) -> None:
    group["again"] = group["0"]


def external_storage(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", (I, H), "f4", external=[(str(secret), 0, I * H * 4)])


def virtual(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    layout = h5py.VirtualLayout((I, H), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data", (I, H))
    group.create_virtual_dataset("0", layout)


def huge_chunked_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", (2**40, 2**20), "f4", chunks=(1, 1))


def huge_empty_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    h5py.h5d.create(group.id, b"0", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((2**30, 2**30)))


def compressed(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", data=np.zeros((I, H), "f4"), compression="gzip")


def compound(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group.create_dataset("0", data=np.zeros((I, H), [("a", "f4"), ("b", "i8")]))


def without_shape(file: Any, group: Any, secret: Path) -> None:
    del group["0"]
    group["0"] = h5py.Empty("f4")


def deep_groups(file: Any, group: Any, secret: Path) -> None:
    file.create_group("/".join("g" * 200))


ATTACKS = {
    external_link: "a link to elsewhere", soft_link: "a link to elsewhere", soft_link_loop: "a link to elsewhere",
    hard_link_loop: "a second name", second_name: "a second name", external_storage: "a reference to other files",
    virtual: "a reference to other files", huge_chunked_shape: "in one piece", huge_empty_shape: "in one piece",
    compressed: "in one piece", compound: "in one piece", without_shape: "in one piece", deep_groups: "levels deep",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_hdf5_made_to_do_harm_is_refused(attack: Callable[..., None], kind: str, tmp_path: Path) -> None:
    path, secret, inner = harmless(tmp_path / f"model{kind}"), tmp_path / "secret.h5", tmp_path / "inner.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.ones((I, H), "f4")
    target = path
    if kind == ".keras":
        with zipfile.ZipFile(path) as archive:
            inner.write_bytes(archive.read("model.weights.h5"))
        target = inner
    with h5py.File(target, "a") as file:
        attack(file, file["layers/simple_rnn/cell/vars"], secret)
    if kind == ".keras":
        edited(path, lambda _: inner.read_bytes(), "model.weights.h5")
    with pytest.raises(FileError, match=f"model.*HDF5.*{ATTACKS[attack]}"):
        FILES.find(path)


def test_our_text_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.weights.h5")
    with h5py.File(path, "a") as file:
        file.attrs["rnnzoo"] = np.arange(3)
    with pytest.raises(FileError, match="attribute 'rnnzoo': expected text"):
        FILES.find(path)


def test_arrays_behind_the_end_of_the_file_are_refused(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.weights.h5")
    place = found(path)["rnn"].parts["layers.0.forward.bias"].tensor.offset
    assert path.read_bytes().count(place.to_bytes(8, "little")) == 1
    path.write_bytes(path.read_bytes().replace(place.to_bytes(8, "little"), (2**40).to_bytes(8, "little")))
    with pytest.raises(FileError, match=r"model\.weights\.h5: not a whole"):
        FILES.find(path)
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(FileError, match=r"model\.weights\.h5: not a whole"):
        FILES.find(path)


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    written = contents(ModelSpec("simple_rnn", I, H))
    written.weights["layers.0.forward.bias"][:3] = np.nan, np.inf, -0.0
    for suffix in (".keras", ".weights.h5"):
        FILES.write(tmp_path / f"model{suffix}", written, plain=True)
        [layer] = FILES.find(tmp_path / f"model{suffix}").layers
        again = StoredWeights(layer.parts)["layers.0.forward.bias"]
        assert again.tobytes() == written.weights["layers.0.forward.bias"].tobytes()


def test_a_large_file_costs_the_sandbox_what_its_directory_costs(tmp_path: Path) -> None:
    spec = ModelSpec("simple_rnn", 16_000, 16_000)  # 1 GiB each, which are holes in the file
    path = tmp_path / "model.weights.h5"
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/simple_rnn/cell/vars")
        for number, shape in enumerate(((16_000, 16_000), (16_000, 16_000), (16_000,))):
            h5py.h5d.create(group.id, str(number).encode(), h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(shape), early)
    assert path.stat().st_size > 2 * 10**9
    layer = found(path)["simple_rnn"]
    assert layer.spec == spec and not StoredWeights(layer.parts)["layers.0.forward.bias"].any()


def test_the_sandbox_says_the_same(tmp_path: Path) -> None:
    path = harmless(tmp_path / "model.keras")
    assert FILES.find(path).layers[0].spec == ModelSpec("simple_rnn", I, H)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileError, match=r"model\.keras: not a whole"):
        FILES.find(path)


def test_the_sandbox_leaves_a_heap_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 1.14 reads for ever where an object of its global heap says that it is -16 bytes long."""
    path = harmless(tmp_path / "model.h5")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 24 : heap + 32] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    monkeypatch.setattr(sandbox, "SECONDS", 3)
    with pytest.raises(FileError, match="not read within 3 seconds"):
        FILES.find(path)


def test_other_files_give_one_error(tmp_path: Path) -> None:
    for name in ("model.keras", "model.weights.h5", "model.h5"):
        path = tmp_path / name
        with pytest.raises(FileError, match="no such file"):
            FILES.find(path)
        for data in (b"", b"no such format", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"):
            path.write_bytes(data)
            with pytest.raises(FileError, match=name):
                FILES.find(path)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("anything", "else")
    with pytest.raises(FileError, match=r"model\.weights\.h5"):
        FILES.find(tmp_path / "other.keras")


def test_a_layer_that_lacks_the_weights_of_a_direction_is_refused(tmp_path: Path) -> None:
    path = save(sequential(L.Bidirectional(L.SimpleRNN(H))), tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        lost = [name for name in all_names(file) if "backward" in name.rpartition("/")[2]]
        del file[lost[0]]
    (layer,) = FILES.find(path).layers
    assert layer.refusal is not None and "has no weights" in layer.refusal


def all_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def layers_of(kinds: list[str]) -> bytes:
    """The configuration of a chain of so many layers."""
    made = [{"class_name": kind, "config": {"name": f"{kind}{n}", "units": 2}} for n, kind in enumerate(kinds)]
    return json.dumps({"class_name": "Sequential", "config": {"layers": made}}).encode()


@pytest.mark.parametrize(
    "kinds", [["SimpleRNN"] * 20_000, [*["Dropout"] * 20_000, "SimpleRNN"]], ids=["many", "between"]
)
def test_a_configuration_of_many_layers_is_read_or_refused_at_once(kinds: list[str], tmp_path: Path) -> None:
    path = harmless(tmp_path / "a.keras")
    edited(path, lambda _: layers_of(kinds))
    start = time.process_time()
    if kinds.count("SimpleRNN") > 1:
        with pytest.raises(FileError, match="at most 2,048 recurrent layers"):
            examining.examine(path)
    else:
        assert len(examining.examine(path)["records"]) == 1
    assert time.process_time() - start < 5
