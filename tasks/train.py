"""`rnnzoo train`: Hydra composes the config, the loop trains, a table tells what came of it."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..spec.errors import RnnZooError
from .completion import complete
from .configs import check_keys, register
from .loop import DivergedError, Summary, train
from .resume import with_config_of_run
from .tables import table

FULL_ERROR = "HYDRA_FULL_ERROR"
EXPECTED = (RnnZooError, OmegaConfBaseException, OSError, MemoryError)  # of a job: all else there is a mistake of ours
HYDRAS_OWN = (HydraException, OmegaConfBaseException, OSError, ValueError)
Outcomes = list[Summary | Exception]


def main(arguments: Sequence[str]) -> int:
    """Everything after `rnnzoo train`. The exit status: 0 done, 1 the loss diverged, 2 bad usage or bad input."""
    if complete(arguments):
        return 0
    outcomes: Outcomes = []
    full = os.environ.get(FULL_ERROR) == "1"
    try:
        arguments = with_config_of_run(arguments)
        register([name for name in _values(arguments, "backend") if ":" in name])
        with _command_line(arguments):
            _hydra(outcomes)
    except SystemExit as stop:
        return 2 if stop.code else 0
    except KeyboardInterrupt:
        print("rnnzoo train: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        known = error in outcomes
        if full or not isinstance(error, EXPECTED if known else HYDRAS_OWN):
            raise
        outcomes += [] if known else [error]
    return _report(outcomes)


def _hydra(outcomes: Outcomes) -> None:
    """Run Hydra on `sys.argv`; each job appends its summary or its error."""

    def job(config: DictConfig) -> None:
        several = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            summary = train(_settings(config), Path(HydraConfig.get().runtime.output_dir))
        except Exception as error:
            if several:
                error.add_note(" ".join(HydraConfig.get().overrides.task))
            outcomes.append(error)
            if not isinstance(error, EXPECTED):
                raise
        else:
            outcomes.append(summary)
            print(_line(summary), flush=True)

    hydra.main(version_base="1.3", config_path="pkg://rnnzoo.tasks.conf", config_name="config")(job)()


def _settings(config: DictConfig) -> dict[str, Any]:
    """The config resolved, as plain data."""
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    found = {str(key): value for key, value in settings.items()}
    check_keys(found)
    return found


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """`sys.argv` for Hydra, and its errors as exceptions instead of as text and exit status 1."""
    argv, full = sys.argv, os.environ.get(FULL_ERROR)
    sys.argv, os.environ[FULL_ERROR] = ["rnnzoo train", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = full


def _values(arguments: Sequence[str], key: str) -> list[str]:
    """The values that a key is given, those of a sweep one by one."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return [value.strip("'\"") for values in given for value in values.split(",")]


def _report(outcomes: Outcomes) -> int:
    summaries = [outcome for outcome in outcomes if isinstance(outcome, Summary)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(summaries) > 1:
        print("\n" + _table(summaries))
    for error in errors:
        print(f"rnnzoo train: {_message(error)}", file=sys.stderr)
    return max((1 if isinstance(error, DivergedError) else 2 for error in errors), default=0)


def _line(summary: Summary) -> str:
    return (
        f"{summary.task} {summary.variant} {summary.backend}: {summary.metric} {summary.value:.4f} "
        f"({summary.baseline_name}: {summary.baseline:.4f}), {summary.steps} updates in {summary.seconds:.1f} s, "
        f"{_short(summary.folder)}"
    )


def _table(summaries: list[Summary]) -> str:
    header = ("task", "model", "backend", "metric", "value", "baseline", "updates", "seconds", "folder")
    rows = [
        (s.task, s.variant, s.backend, s.metric, f"{s.value:.4f}", f"{s.baseline:.4f}", str(s.steps),
         f"{s.seconds:.1f}", _short(s.folder))
        for s in summaries
    ]  # fmt: skip
    return table(header, rows)


def _short(folder: str) -> str:
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else folder


def _message(error: BaseException) -> str:
    """The error and what Hydra hides behind it, without the names of our config classes."""
    causes = [error] if error.__cause__ is None or isinstance(error, EXPECTED) else [error, error.__cause__]
    lines = [line for cause in causes for line in _text(cause).splitlines()]
    hints = ("_type=", "full_key:", "To append to your config use +")
    kept = [line for line in lines if line.strip() and not any(hint in line for hint in hints)]
    return "\n  ".join([*getattr(error, "__notes__", []), *dict.fromkeys(kept)])


def _text(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}; lower model.hidden_size, task.window or trainer.batch_size"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; name a folder that can be written, with hydra.run.dir=FOLDER"
    return str(error)
