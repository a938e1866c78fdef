"""A report as one HTML page that needs no network and no server."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from .data import backend_names, plain

# A row in the page has an outcome's values in this order: with every key in every row it would be twice as long.
COLUMNS = (
    "backend", "item", "check", "clause", "dtype", "case", "verdict", "ratio", "quantity", "error", "allowed",
    "seconds", "message", "divergence", "reproduce",
)  # fmt: skip
PLACE = "REPORT_DATA"


def page_text(data: Mapping[str, Any]) -> str:
    """`page.html` with the report in it."""
    report = plain(data)
    rows = [[outcome[column] for column in COLUMNS] for outcome in report["outcomes"]]
    report |= {"names": backend_names(report), "outcomes": {"columns": COLUMNS, "rows": rows}}
    text = json.dumps(report, allow_nan=False, separators=(",", ":"))
    # No `<` remains, so nothing in the data can end the element that holds it.
    return _template().replace(PLACE, text.replace("<", "\\u003c"))


def _template() -> str:
    return resources.files(__package__).joinpath("page.html").read_text("utf-8")
