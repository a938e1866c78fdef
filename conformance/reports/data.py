"""A report as JSON. `report.schema.json` says what is in it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(data: Mapping[str, Any]) -> str:
    """The report in ASCII, one line for each outcome, so that line tools can read and compare it."""
    report = plain(data)
    head = json.dumps({key: value for key, value in report.items() if key != "outcomes"}, indent=1, allow_nan=False)
    outcomes = ",\n".join(json.dumps(outcome, allow_nan=False) for outcome in report["outcomes"])
    return f'{head[:-2]},\n "outcomes": [\n{outcomes}\n]}}\n'


def plain(value: Any) -> Any:
    """The value with `NaN`, `Infinity` and `-Infinity` by name, which both `float` and JavaScript's `Number` read."""
    match value:
        case Mapping():
            return {key: plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [plain(entry) for entry in value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def backend_names(data: Mapping[str, Any]) -> list[str]:
    """Those that the report lists, then any that only an outcome names."""
    listed = [backend["name"] for backend in data["backends"]]
    return list(dict.fromkeys([*listed, *(outcome["backend"] for outcome in data["outcomes"])]))
