"""The command line `rnnzoo`.

Exit status: 0 done; 1 a check failed, or a conversion could not be proven; 2 bad usage or bad input.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from ..spec.errors import ConformanceError, InputError, RnnZooError
from . import check_options, converting

EPILOG = (
    "Files: .safetensors (canonical, or of any names), .safetensors.index.json, .torch.safetensors, .pt, .pth, .bin, "
    ".ckpt, .keras, .weights.h5, .h5, .npz, .onnx."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:  # the program itself: what is half done is cleared away
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if given[:1] == ["train"]:
            from ..tasks.train import main as train

            return train(given[1:])
        options = _parser().parse_args(given)
        command: Callable[[argparse.Namespace], int] = options.command
        status = command(options)
        sys.stdout.flush()
        return status
    except ConformanceError as error:
        print(f"rnnzoo: {error}", file=sys.stderr)
        return 1
    except RnnZooError as error:
        from ..tasks.tables import printable

        print(f"rnnzoo: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # files have errors of their own by now: this is our output
        print(f"rnnzoo: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        print("rnnzoo: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnnzoo", description="Recurrent networks with one spec and three backends that agree.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"rnnzoo {metadata.version('rnnzoo')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("train", help="train a model on a task: rnnzoo train task=digits model=bi_rnn backend=tf")
    _add_evaluate(commands)
    _add_sample(commands)
    _add_plot(commands)
    _add_convert(commands)
    _add_inspect(commands)
    _add_diff(commands)
    _add_check(commands)
    _add_bench(commands)
    return parser


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("evaluate", help="evaluate a trained model on its task's test data", epilog=EPILOG)
    command.add_argument(
        "file", type=Path, metavar="FILE", help="a run's folder, or a file that `train` or `convert` wrote"
    )
    command.add_argument(
        "--backend", default="numpy", help="numpy, torch, tf or package.module:OBJECT (default: numpy)"
    )
    _add_overrides(command)
    command.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from ..tasks.evaluate import evaluate
    from ..tasks.run_folder import model_file
    from .formats import read

    print(evaluate(read(model_file(options.file)), options.backend, **_overrides(options)).text())
    return 0


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="other data for the task: text=FILE, data=FILE"
    )


def _overrides(options: argparse.Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in options.overrides]
    if wrong := [key for key, separator, _ in pairs if not separator]:
        raise InputError(f"{wrong[0]!r}: expected KEY=VALUE, such as text=FILE")
    return {key: value for key, _, value in pairs}


def _add_sample(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("sample", help="let a model say something: text, captions, dates", epilog=EPILOG)
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a run's folder, or a model file, of the task char_lm, captioning or translate",
    )
    command.add_argument(
        "--backend", default="numpy", help="numpy, torch, tf or package.module:OBJECT (default: numpy)"
    )
    command.add_argument("--length", type=int, help="characters to write (char_lm; default: 400)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--temperature", type=float, help="of the draws (default: 0.7 for char_lm, 0 for captioning)")
    which.add_argument(
        "--greedy", dest="temperature", action="store_const", const=0.0, help="the same as temperature 0"
    )
    command.add_argument("--seed", type=int, help="of the random draws (default: 0)")
    command.add_argument("--seed-text", help="text to go on from (char_lm)")
    command.add_argument("--count", type=int, help="pictures or dates of the test (default: 8)")
    command.add_argument(
        "--input", dest="inputs", action="append", metavar="TEXT", help="a date to translate; may be repeated"
    )
    _add_overrides(command)
    command.set_defaults(command=_sample)


def _sample(options: argparse.Namespace) -> int:
    from ..tasks.run_folder import model_file
    from ..tasks.sample import OPTIONS, sample
    from .formats import read

    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    print(sample(read(model_file(options.file)), options.backend, **given, **_overrides(options)))
    return 0


def _add_plot(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("plot", help="curves of runs, and a picture of what each one's model does, as PNG")
    command.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folders of runs or of sweeps")
    command.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for curves.png (default: RUN, or here if several)"
    )
    command.add_argument(
        "--backend", default="numpy", help="that runs the models: numpy, torch, tf or package.module:OBJECT"
    )
    command.set_defaults(command=_plot)


def _plot(options: argparse.Namespace) -> int:
    from ..tasks.plot import plot
    from ..tasks.tables import short

    for path in plot(options.folders, options.output, options.backend):
        print(short(path))
    return 0


def _add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("convert", help="convert a recurrent layer or model, with a proof", epilog=EPILOG)
    converting.add_arguments(command)
    command.set_defaults(command=converting.convert_command)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("inspect", help="show the recurrent layers and models in a file", epilog=EPILOG)
    command.add_argument("file", type=Path, metavar="FILE")
    converting.add_hints(command)
    command.set_defaults(command=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from .inspection import describe

    print(describe(options.file, converting.hints_of(options)))
    return 0


def _add_diff(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "diff", help="compare two model files by their tensors and by running both", epilog=EPILOG
    )
    command.add_argument("first", type=Path, metavar="A")
    command.add_argument("second", type=Path, metavar="B")
    command.add_argument("--spec", type=Path, help="the models' spec (YAML or JSON), for files that carry none")
    command.set_defaults(command=_diff)


def _diff(options: argparse.Namespace) -> int:
    from .formats import read_spec
    from .inspection import difference

    text, same = difference(options.first, options.second, read_spec(options.spec))
    print(f"{text}\n\n{'the same model' if same else 'not the same model'}")
    return 0 if same else 1


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("check", help="check backends against the spec")
    check_options.add_arguments(command)
    command.set_defaults(command=_check)


def _check(options: argparse.Namespace) -> int:
    from .checking import check

    return check(options)


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("bench", help="measure the backends against frameworks, other engines and the floor")
    command.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each engine (default: all cores)")
    command.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall",
        help="cpu: the process's time, for one thread on a machine that others use (default: wall)",
    )  # fmt: skip
    command.add_argument("--rounds", type=int, default=7, help="in which the engines take turns (default: 7)")
    command.add_argument("--device", default="cpu", help="such as cuda: there, torch's engines alone (default: cpu)")
    command.add_argument("--out", type=Path, metavar="DIR", help="write bench.json and bench.png there")
    command.set_defaults(command=_bench)


def _bench(options: argparse.Namespace) -> int:
    from ..benchmarks.command import bench

    return bench(options)
