"""`rnnzoo convert`: its options, and what it does."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..spec.errors import ConformanceError, InputError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("source", type=Path, metavar="SRC")
    command.add_argument("target", type=Path, metavar="DST")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--layer", metavar="PATH", help="the layer of SRC, as `rnnzoo inspect SRC` names it")
    which.add_argument(
        "--all", action="store_true",
        help="every layer, each into a file with its path in its name; one that is refused is named, the others are "
             "written, and the exit status is 2, or 1 where one could not be proven",
    )  # fmt: skip
    add_hints(command)
    command.add_argument(
        "--plain", action="store_true",
        help="write the framework's own standard layers (torch.nn.RNN, Keras' SimpleRNN), which need no rnnzoo",
    )  # fmt: skip
    command.add_argument(
        "--prefix", default="", help="before the names in a plain state dict (encoder.rnn.), or of layers in a .keras"
    )
    command.add_argument(
        "--inputs", type=Path, metavar="NPZ", help="arrays to run the proof on: inputs, and lengths, initial_state, ..."
    )
    command.add_argument("--report", type=Path, metavar="JSON", help="write what was done, with every number")
    command.add_argument("--force", action="store_true", help="replace DST if it exists")


def add_hints(command: argparse.ArgumentParser) -> None:
    """Options for what a file may not tell of its layers."""
    command.add_argument("--spec", type=Path, help="the model's spec (YAML or JSON), for a file that carries none")
    command.add_argument(
        "--nonlinearity", choices=("tanh", "relu", "sigmoid", "identity"),
        help="where a file does not tell it, as a torch state dict does not (default: tanh)",
    )  # fmt: skip


def hints_of(options: argparse.Namespace) -> Any:
    """What those options say, a `Hints`. Raises SpecError or FileError."""
    from ..spec.found import Hints
    from .formats import read_spec

    return Hints(read_spec(options.spec), options.nonlinearity)


def convert_command(options: argparse.Namespace) -> int:
    """Convert, tell what was done, and return the exit status. Raises RnnZooError."""
    from ..spec.checkpoint import check_writable
    from ..spec.npz import read_npz
    from . import conversion_report
    from .convert import Refused, convert, convert_all
    from .guard import ended_where_cut

    if options.prefix and not options.plain:
        raise InputError("--prefix: names in a plain state dict; pass --plain too")
    if options.report:
        check_writable(options.report, force=options.force)
        if options.report.absolute() in (options.source.absolute(), options.target.absolute()):
            raise InputError(f"--report {options.report}: expected a file of its own")
    settings = {
        "hints": hints_of(options), "plain": options.plain, "prefix": options.prefix, "force": options.force,
        "inputs": read_npz(options.inputs) if options.inputs else None,
    }  # fmt: skip
    with ended_where_cut(options.source):
        if options.all:
            done = _told(convert_all(options.source, options.target, **settings))
        else:
            done = _told([convert(options.source, options.target, layer=options.layer, **settings)])
    if options.report:
        conversion_report.write(options.report, done, many=options.all)
    errors = [one.error for one in done if isinstance(one, Refused)]
    unproven = any(isinstance(error, ConformanceError) for error in errors)
    return 1 if unproven else 2 if errors else 0


def _told(results: Iterable[Any]) -> list[Any]:
    """Conversions, and layers that were refused: each is told as it comes."""
    from . import conversion_report
    from .convert import Refused

    done: list[Any] = []
    for one in results:
        if isinstance(one, Refused):
            print(f"rnnzoo: {conversion_report.refusal(one)}", file=sys.stderr)
        else:
            print("\n" * bool(done) + conversion_report.text(one))
        done.append(one)
    return done
