"""What is in the wheel, what an import loads, and which folder may know which."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDERS = ("spec", "numpy_impl", "torch_impl", "tf_impl", "tasks", "benchmarks", "conformance")
IMPLEMENTATIONS = ("numpy_impl", "torch_impl", "tf_impl")
TOP_LEVEL = {"pyproject.toml", "README.md", "Makefile", "constraints.txt", "LICENSE", *FOLDERS, "tests"}
FRAMEWORKS = {"torch", "tensorflow", "keras"}
BACKENDS = {"numpy", "torch", "tf"}
KNOW_BACKENDS = (
    "spec/backend.py",
    "conformance/faults/replaced.py",  # puts a fault into a named function of each
    "conformance/adapters/",  # know the backends of Keras, which share some names with ours
)
EXPORTS = {
    "Adagrad", "Adam", "Backend", "Batch", "ClipByGlobalNorm", "ClipByValue", "Contents", "Context", "Cosine",
    "CrossEntropy", "Draw", "Dropout", "Embedding", "EncoderDecoderSpec", "Head", "INITIALIZERS", "Initializer",
    "Masks", "MeanSquaredError", "ModelSpec", "Parameter", "RMSprop", "Result", "RnnZooError", "SGD", "Source",
    "StepDecay", "StepResult", "TrainingSpec", "WarmUp", "backend_names", "initial_weights", "load", "load_backend",
    "parameters", "save",
}  # fmt: skip
# Files that only one framework has a use for, each with its reason.
OWN_FILES = {
    "torch_impl": {
        "layers.py",  # beside a layer that is an object of the framework
        "arguments.py",  # a module is called with tensors, not through the seam
        "optimizer_state.py",  # of the framework's own optimizers
        "transforms.py",  # derivatives that torch can ask for and an operator of our own cannot give
        "cudnn.py",  # a kernel of the framework, on a GPU
        "plain.py",  # the framework's own layers; NumPy has none
        "checkpoint.py",  # its files are zip archives
        "unpickling.py",  # of pickles, which are read without unpickling
        "records.py",  # that stand for tensors and much else,
        "naming.py",  # whose names tell
        "finding.py",  # where the layers are
        "writing.py",  # and files are written without the framework
    },
    "tf_impl": {
        "layers.py",  # beside a layer that is an object of the framework
        "sweeps.py",  # loops in a graph, whose gradients are written out
        "importing.py",  # Keras has backends of its own, and TensorFlow logs while it is loaded
        "arguments.py",  # Keras calls layers with shapes and values that are known only later
        "series.py",  # a loop that XLA compiles has no lists of tensors
        "graphs.py",  # TensorFlow traces a call into a graph before it is fast
        "optimizers.py",  # users hand them to `fit`
        "optimizer_state.py",  # and have their own, whose state moves
        "streaming.py",  # a step of a Keras layer runs as a graph of its own
        "hdf5.py",  # Keras' files are HDF5 in a zip, to be read without trusting them
        "plain.py",  # the framework's own layers; NumPy has none
        "anatomy.py",  # taken apart into what the spec knows
        "examining.py",  # its files hold weights
        "configuration.py",  # and a description of layers
        "rebuilding.py",  # which are built anew from what it says of them
        "options.py",  # with many options,
        "naming.py",  # whose names tell
        "finding.py",  # where the recurrent ones are
        "architecture.py",  # and descriptions
        "writing.py",  # and files are written without the framework
    },
}

ABSENT = {  # other frameworks' products add by themselves, and XLA compiles for steps of one size
    "torch_impl": {"blas.py"},
    "tf_impl": {"blas.py", "steps.py"},
}


def packaged(source_files: list[Path]) -> list[Path]:
    return [path for path in source_files if path.parts[0] in FOLDERS]


# --- the wheel ---


@pytest.fixture(scope="module")
def wheel(root: Path, source_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout, so that nothing is left in it."""
    copy, target = tmp_path_factory.mktemp("another-name"), tmp_path_factory.mktemp("wheel")
    copied(root, source_files, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(copy)]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def copied(root: Path, source_files: list[Path], target: Path) -> None:
    for path in source_files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, target / path)


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment: the wheel installed, its dependencies those of this environment."""
    return environment(tmp_path_factory.mktemp("environment"), str(wheel))


def environment(folder: Path, *target: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python3*/site-packages")
    # The path alone: the .pth files over there, and so the editable installation, are not read.
    found = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(found) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, "--ignore-installed", "--no-build-isolation", *target], check=True, env=quiet)
    return python


def run_installed(command: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_rnnzoo_is_the_only_name_the_wheel_installs(contents: set[str]) -> None:
    assert {name.partition("/")[0] for name in contents} == {"rnnzoo", "rnnzoo-0.1.0.dist-info"}


def test_every_file_of_the_folders_is_in_the_wheel_and_nothing_else(
    contents: set[str], source_files: list[Path]
) -> None:
    wanted = {f"rnnzoo/{path.as_posix()}" for path in packaged(source_files)}
    found = {name for name in contents if name.startswith("rnnzoo/")}
    assert sorted(wanted - found) == []
    assert sorted(found - wanted) == []


def test_data_files_are_in_the_wheel(contents: set[str]) -> None:
    for name in [
        "spec/SPEC.md", "spec/variants/simple_rnn.yaml", "spec/variants/bi_rnn.yaml", "spec/variants/stacked_rnn.yaml",
        "spec/variants/stacked_bi_rnn.yaml", "spec/cells/rnn.yaml", "spec/schemas/cell.schema.json",
        "spec/schemas/variant.schema.json", "tasks/conf/config.yaml", "conformance/PROTOCOL.md",
        "conformance/vectors/vector.schema.json", "conformance/vectors/README.md", "conformance/reports/page.html",
        "conformance/adapters/node/simple_rnn.mjs", *(f"{folder}/py.typed" for folder in FOLDERS),
    ]:  # fmt: skip
        assert f"rnnzoo/{name}" in contents
    assert "rnnzoo-0.1.0.dist-info/licenses/LICENSE" in contents


def test_the_installed_wheel_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import pathlib, sys
import rnnzoo.spec as spec
assert pathlib.Path(spec.__file__).is_relative_to(sys.prefix), spec.__file__
import rnnzoo
assert [str(pathlib.Path(p)) for p in rnnzoo.__path__] == [str(pathlib.Path(spec.__file__).parents[1])], rnnzoo.__path__
backend = spec.load_backend("numpy")
model = backend.build(spec.ModelSpec("stacked_bi_rnn", 3, 4, 2), seed=1)
spec.save(pathlib.Path("a.safetensors"), spec.Contents(model.spec, backend.to_spec(model), {}))
print(backend.run(model, [[[0.0, 1.0, 2.0]]]).outputs.shape, spec.load(pathlib.Path("a.safetensors")).spec.variant)
"""
    done = run_installed([installed, "-P", "-c", code], tmp_path)
    assert (done.stdout, done.stderr) == ("(1, 1, 8) stacked_bi_rnn\n", "")


def test_the_installed_command_starts(installed: Path, tmp_path: Path) -> None:
    done = run_installed([installed.with_name("rnnzoo"), "--help"], tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    for command in ("train", "evaluate", "convert", "inspect", "diff", "check"):
        assert command in done.stdout


def test_the_suite_runs_in_a_clone_of_another_name(
    root: Path, source_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    clone = tmp_path_factory.mktemp("some-other-name")
    copied(root, source_files, clone)
    python = environment(clone / ".venv", "-e", str(clone))
    suite = run_installed([python.with_name("rnnzoo"), "check", "--quick"], clone)
    assert suite.returncode == 0 and " passed; of " in suite.stdout, suite.stdout + suite.stderr
    assert all(f"\n{name} " in suite.stdout for name in ("numpy", "torch", "tf"))
    where = run_installed([python, "-P", "-c", "import rnnzoo.spec; print(rnnzoo.spec.__file__)"], clone)
    assert where.stdout.strip() == str(clone / "spec" / "__init__.py")


def test_building_leaves_nothing_in_the_checkout(wheel: Path, root: Path) -> None:
    assert not (root / "build").exists() and not (root / "dist").exists()


# --- what an import loads ---


@pytest.mark.parametrize(
    "code",
    [
        "import rnnzoo.spec",
        "from rnnzoo.spec import load_backend; load_backend('numpy')",
        "import rnnzoo.conformance.cli",
        "import rnnzoo.conformance.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass",
        "import sys\nfrom rnnzoo.conformance import cli\nsys.argv[1:] = ['-h']\n"
        "try: cli.main()\nexcept SystemExit: pass",
    ],
    ids=["spec", "numpy backend", "command line", "--help", "script --help"],
)
def test_no_framework_is_loaded(fresh_python: Callable[..., object], code: str) -> None:
    done = fresh_python(f"{code}\nimport sys; print(sorted(set(sys.modules) & {FRAMEWORKS!r}), file=sys.stderr)")
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_export_list_of_the_spec() -> None:
    import rnnzoo.spec

    public = {name for name in vars(rnnzoo.spec) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(rnnzoo.spec, name)).__name__ == "module"}
    assert public - modules == EXPORTS


# --- the layout ---


def test_the_top_level_is_the_one_of_the_design(source_files: list[Path]) -> None:
    found = {path.parts[0] for path in source_files if not path.parts[0].startswith(".")}
    assert sorted(found - TOP_LEVEL) == []
    assert sorted(TOP_LEVEL - found - {"benchmarks"}) == []


def test_every_folder_with_python_files_is_a_listed_package(root: Path, source_files: list[Path]) -> None:
    for path in packaged(source_files):
        if path.suffix == ".py":
            assert (root / path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_the_implementations_have_the_same_file_names(source_files: list[Path]) -> None:
    names = {
        folder: {path.relative_to(folder).as_posix() for path in source_files if path.parts[0] == folder}
        for folder in IMPLEMENTATIONS
    }
    for folder in IMPLEMENTATIONS[1:]:
        assert sorted(names["numpy_impl"] - names[folder] - ABSENT.get(folder, set())) == [], f"missing in {folder}"
        assert sorted(names[folder] - names["numpy_impl"] - OWN_FILES.get(folder, set())) == [], f"only in {folder}"


# --- who knows whom ---

MAY_IMPORT: dict[str, set[str]] = {
    "spec": set(),
    **{folder: {"spec"} for folder in IMPLEMENTATIONS},
    "tasks": {"spec"},
    "benchmarks": {"spec", "tasks"},
    "conformance": {"spec", "tasks", "benchmarks"},
}


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """Full names of what a file imports, anywhere in it; relative ones below `rnnzoo`."""
    package = ["rnnzoo", *path.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def python_files(root: Path, source_files: list[Path]) -> list[tuple[Path, ast.AST]]:
    return [
        (path, ast.parse((root / path).read_text("utf-8"))) for path in packaged(source_files) if path.suffix == ".py"
    ]


def test_imports_run_one_way(root: Path, source_files: list[Path]) -> None:
    wrong = []
    for path, tree in python_files(root, source_files):
        folder = path.parts[0]
        for name in imported(path, tree):
            parts = name.split(".")
            if parts[0] in FOLDERS or (parts[0] == "rnnzoo" and parts[1] not in {folder, *MAY_IMPORT[folder]}):
                wrong.append(f"{path} imports {name}")
    assert wrong == []


RUN_FRAMEWORKS = {("conformance", "adapters"), ("benchmarks", "engines")}  # their own layers


def test_a_framework_is_imported_only_by_its_implementation(root: Path, source_files: list[Path]) -> None:
    own = {"torch_impl": {"torch"}, "tf_impl": {"tensorflow", "keras"}}
    wrong = []
    for path, tree in python_files(root, source_files):
        frameworks = {name.partition(".")[0] for name in imported(path, tree)} & FRAMEWORKS
        if path.parts[:2] not in RUN_FRAMEWORKS:
            wrong += [f"{path} imports {name}" for name in frameworks - own.get(path.parts[0], set())]
    assert wrong == []


def strings(tree: ast.AST) -> set[str]:
    return {leaf.value for leaf in ast.walk(tree) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}


def switches(tree: ast.AST) -> Iterator[int]:
    """Lines that compare something with a backend's name, or choose by a table of such names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and strings(node) & BACKENDS:
            if any(isinstance(operation, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operation in node.ops):
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and strings(node) & BACKENDS:
            yield node.lineno
        elif isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if len(keys & BACKENDS) > 1:
                yield node.lineno


def test_nothing_outside_the_loader_switches_on_a_backend(root: Path, source_files: list[Path]) -> None:
    files = [(path, tree) for path, tree in python_files(root, source_files)]
    files = [(path, tree) for path, tree in files if not path.as_posix().startswith(KNOW_BACKENDS)]
    assert [f"{path}:{line}" for path, tree in files for line in switches(tree)] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("if name == 'torch': pass", True),
        ("if 'tf' != backend.name: pass", True),
        ("x = name in ('numpy', 'jax')", True),
        ("match name:\n    case 'tf': pass", True),
        ("table = {'torch': 1, 'tf': 2}", True),
        ("if kind == 'concat': pass", False),
        ("safe_open(path, framework='numpy')", False),
        ("INITIALIZERS = {'torch': 1, 'keras': 2}", False),
    ],
)
def test_a_switch_is_recognised(code: str, found: bool) -> None:
    assert bool(list(switches(ast.parse(code)))) is found


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from ..spec.model import A\nfrom . import b\nimport numpy.linalg\nfrom ...tasks import c")
    assert list(imported(Path("tasks/conf/x.py"), tree)) == [
        "rnnzoo.tasks.spec.model.A", "rnnzoo.tasks.conf.b", "numpy.linalg", "rnnzoo.tasks.c",
    ]  # fmt: skip
