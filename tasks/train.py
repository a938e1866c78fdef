"""`rnnzoo train`: Hydra composes the config, the loop trains, a table tells what came of it."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ..spec.errors import RnnZooError
from .completion import complete
from .configs import check_keys, register
from .loop import DivergedError, Summary, train
from .outcomes import Jobs, Outcome, summary_table
from .plot import plot_sweep
from .resume import with_config_of_run
from .tables import short

FULL_ERROR = "HYDRA_FULL_ERROR"
EXPECTED = (RnnZooError, OmegaConfBaseException, OSError, MemoryError)  # of a job: all else there is a mistake of ours
HYDRAS_OWN = (HydraException, OmegaConfBaseException, OSError, ValueError)
EXTRAS = {
    "joblib": ("hydra/launcher/joblib",), "submitit": ("hydra/launcher/submitit", "hydra/launcher/slurm"),
    "optuna": ("hydra/sweeper/optuna",),
}  # fmt: skip
OURS = "rnnzoo: a mistake in the package, not in the config"  # a note that errors keep between processes


def main(arguments: Sequence[str]) -> int:
    """Everything after `rnnzoo train`. The exit status: 0 done, 1 the loss diverged, 2 bad usage or bad input."""
    if complete(arguments):
        return 0
    full = os.environ.get(FULL_ERROR) == "1"
    status = 0
    Jobs.forget()
    try:
        arguments = with_config_of_run(arguments)
        register([name for name in _values(arguments, "backend") if ":" in name])
        with _command_line(arguments):
            hydra.main(version_base="1.3", config_path="pkg://rnnzoo.tasks.conf", config_name="config")(_job)()
    except SystemExit as stop:
        return 2 if stop.code else 0
    except KeyboardInterrupt:
        print("rnnzoo train: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if full or OURS in getattr(error, "__notes__", []) or not isinstance(error, (*EXPECTED, *HYDRAS_OWN)):
            raise
        status = _status(error)
        print(f"rnnzoo train: {_message(error)}", file=sys.stderr)
    return max(status, _report(Jobs.outcomes()))


def _job(config: DictConfig) -> float | None:
    """One run; the metric is what a sweeper seeks by. In a sweep a refusal is an outcome, and the others go on."""
    this = HydraConfig.get()
    folder, several = Path(this.runtime.output_dir), this.mode == RunMode.MULTIRUN
    outcome = partial(Outcome, this.job.num, " ".join(this.overrides.task)) if several else partial(Outcome, 0, "")
    where, value = folder if several else None, None
    try:
        summary = train(_settings(config), folder)
    except EXPECTED as error:
        Jobs.ended(outcome(error=_message(error), status=_status(error)), where)
    except Exception as error:
        error.add_note(OURS)
        raise
    else:
        print(_line(summary), flush=True)
        Jobs.ended(outcome(summary=summary), where)
        value = summary.value
    return value


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
        with warnings.catch_warnings():
            # joblib takes the loading of a framework for a leak of memory, and gives the next job a new process.
            warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
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


def _report(outcomes: Sequence[Outcome]) -> int:
    """The table of several runs, and the errors; the exit status."""
    summaries = [outcome.summary for outcome in outcomes if outcome.summary]
    if len(summaries) > 1:
        print("\n" + summary_table(summaries))
        _plot()
    for outcome in outcomes:
        if outcome.error:
            print("rnnzoo train: " + "\n  ".join(filter(None, (outcome.overrides, outcome.error))), file=sys.stderr)
    return max((outcome.status for outcome in outcomes), default=0)


def _plot() -> None:
    """The curves of the sweep over each other, where the extra for it is installed."""
    assert Jobs.sweep
    try:
        print(f"\n{short(plot_sweep(Jobs.sweep))}")
    except RnnZooError as error:
        print(f"\nno plot: {error}")


def _status(error: Exception) -> int:
    return 1 if isinstance(error, DivergedError) else 2


def _line(summary: Summary) -> str:
    return (
        f"{summary.task} {summary.variant} {summary.backend}: {summary.metric} {summary.value:.4f} "
        f"({summary.baseline_name}: {summary.baseline:.4f}), {summary.steps} updates in {summary.seconds:.1f} s, "
        f"{short(summary.folder)}"
    )


def _message(error: BaseException) -> str:
    """The error and what Hydra hides behind it, without the names of our config classes."""
    causes = [error] if error.__cause__ is None or isinstance(error, EXPECTED) else [error, error.__cause__]
    lines = [line for cause in causes for line in _text(cause).splitlines()]
    hints = ("_type=", "full_key:", "To append to your config use +")
    kept = [line for line in lines if line.strip() and not any(hint in line for hint in hints)]
    return "\n  ".join(dict.fromkeys(kept))


def _text(error: BaseException) -> str:
    for extra, options in EXTRAS.items():
        if any(f"'{option}" in str(error) for option in options):
            return f"{error}\nit comes with an extra: pip install 'rnnzoo[{extra}]'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: expected one of {', '.join(error.options)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: expected a value, got none; give {error.full_key}=VALUE"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}; lower model.hidden_size, task.window or trainer.batch_size"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; name a folder that can be written, with hydra.run.dir=FOLDER"
    return str(error)
