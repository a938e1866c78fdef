"""`rnnzoo train resume=PATH`: the config of the run that goes on, and what of it may be another now."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from ..spec.errors import SpecError
from .run_folder import GROUPS, MODEL, Start, start_of
from .task import Task, source_of, task_of

KEY = "resume"
MAY_CHANGE = {  # neither the data nor what the trainer keeps depends on them
    "resume", "reaches", "misses", "backend.name", "trainer.steps", "trainer.epochs", "trainer.evaluate_every",
    "trainer.checkpoint_every", "trainer.recompute", "trainer.progress", "trainer.tensorboard", "trainer.clip",
    "trainer.clip_kind", "optimizer.learning_rate",
}  # fmt: skip


def with_config_of_run(arguments: Sequence[str]) -> list[str]:
    """The arguments, their overrides after those that stand for the config of the run that `resume=PATH` names.

    An unfinished run goes on in its own folder, unless another is named.

    Raises:
        FileError: there is no checkpoint.
        SpecError: more than one run is named.
    """
    path = _named_run(arguments)
    if path is None:
        return list(arguments)
    start = start_of(path)
    given = {argument.partition("=")[0] for argument in arguments}
    found = _folder(path, arguments, given)
    for group, values in start.state.config.items():
        if isinstance(values, Mapping) and group not in given:
            found += [f"{group}={values[GROUPS[group]]}"] if group in GROUPS else []
            found += [f"{group}.{key}={_literal(value)}" for key, value in values.items() if group != "backend"]
    first = next(
        place for place, argument in enumerate(arguments) if re.match(r"[^-]\S*=", argument)
    )  # flags stay first
    return [*arguments[:first], *found, *arguments[first:]]


def _named_run(arguments: Sequence[str]) -> Path | None:
    named = [argument for argument in arguments if re.match(rf"\+*{KEY}=", argument)]
    if not named:
        return None
    override = OverridesParser.create().parse_override(named[-1])
    if len(named) > 1 or override.is_sweep_override():
        raise SpecError(f"{KEY}: expected one run or checkpoint, got several; name the one to go on from")
    value = override.value()
    return None if value is None else Path(str(value))


def _folder(path: Path, arguments: Sequence[str], given: set[str]) -> list[str]:
    several = bool({"-m", "--multirun"} & set(arguments))
    if several or "hydra.run.dir" in given or not path.is_dir() or (path / MODEL).exists():
        return []
    return [f"hydra.run.dir={_literal(str(path))}"]


def _literal(value: Any) -> str:
    """The value in Hydra's grammar of overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value) + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_literal, value)) + "]"
    return repr(value)


def check_fixed(config: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Raises SpecError where the config differs from that of the run in what a checkpoint fixes."""
    source = source_of(recorded["task"]["name"])
    free = MAY_CHANGE | {"task.suggested"} | ({f"task.{source}"} if source else set())
    for key, now, then in _differences(config, recorded, free):
        raise SpecError(
            f"{key}: the checkpoint fixes it at {then!r}, got {now!r}; leave it out, or start a new run. "
            f"What may change: {', '.join(sorted(free - {KEY, 'task.suggested'}))}"
        )


def _differences(now: Any, then: Any, free: set[str], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key and both values of each difference; a key that one of two groups lacks is of another version."""
    for key in now.keys() & then.keys():
        name, pair = prefix + key, (now[key], then[key])
        if name in free:
            continue
        if all(isinstance(value, Mapping) for value in pair):
            yield from _differences(*pair, free, f"{name}.")
        elif pair[0] != pair[1]:
            yield name, *pair


def check_longer(path: str, done: int, steps: int) -> None:
    """Raises SpecError where nothing is left to do: a run that was killed may lack its end alone."""
    if steps < done or (steps == done and (Path(path) / MODEL).exists()):
        raise SpecError(
            f"{KEY}: {path} has {done} updates, and the run is to have {steps}; "
            "give more with trainer.steps, or with trainer.epochs and trainer.steps=null"
        )


def resumed_task(config: Mapping[str, Any], start: Start) -> Task:
    """The task of the run, with the same data, which may lie elsewhere now. Raises RnnZooError."""
    recorded = start.contents.provenance["task"]
    source, then = source_of(recorded["name"]), start.state.config["task"]
    if source is None or config["task"][source] == then[source]:
        return task_of(start.contents, {})
    return task_of(start.contents, {source: config["task"][source], "sha256": recorded["sha256"]})
