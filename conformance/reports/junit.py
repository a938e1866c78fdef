"""A report in the XML that JUnit's Ant task began and continuous integration reads: Jenkins, GitLab and others.

One suite for each backend, one test case for each item. It knows passed, failed and skipped only, so an ill-conditioned
case and a known failure are skipped, and the message says which.
"""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from .data import backend_names, plain

# What XML 1.0 has no way to write, not even as a reference, and halves of surrogate pairs.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_text(data: Mapping[str, Any]) -> str:
    """The report as JUnit XML."""
    report = plain(data)
    suites = ET.Element("testsuites")
    for index, name in enumerate(backend_names(report)):
        suites.append(_suite(report, name, index))
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _suite(report: Mapping[str, Any], name: str, index: int) -> ET.Element:
    outcomes = [outcome for outcome in report["outcomes"] if outcome["backend"] == name]
    cases = [_case(outcome) for outcome in outcomes]
    suite = _element(
        "testsuite",
        name=name,
        package="rnnzoo",
        id=index,
        timestamp=report["started"][:19],  # the schema allows no time zone here
        hostname="localhost",  # the schema's word for a host that is not told
        tests=len(cases),
        failures=sum(case.find("failure") is not None for case in cases),
        errors=0,
        skipped=sum(case.find("skipped") is not None for case in cases),
        time=f"{sum(outcome['seconds'] for outcome in outcomes):.3f}",
    )
    suite.append(_properties(report, name))
    suite.extend(cases)
    suite.extend([ET.Element("system-out"), ET.Element("system-err")])
    return suite


def _properties(report: Mapping[str, Any], name: str) -> ET.Element:
    versions: dict[str, Any] = {"rnnzoo": report["rnnzoo"], "arguments": " ".join(report["arguments"])}
    for backend in report["backends"]:
        if backend["name"] == name:
            versions |= backend["versions"]
            untested = backend.get("declared_not_tested")
            versions |= {"declared, not tested": ", ".join(untested)} if untested else {}
    properties = ET.Element("properties")
    for key, value in {**report["machine"], **versions}.items():
        properties.append(_element("property", name=key, value=value))
    return properties


def _case(outcome: Mapping[str, Any]) -> ET.Element:
    case = _element(
        "testcase",
        classname=f"{outcome['backend']}.{outcome['check']}",
        name=outcome["item"],
        time=f"{outcome['seconds']:.3f}",
    )
    message = outcome["message"]
    match outcome["verdict"]:
        case "passed":
            pass
        case "failed":
            case.append(
                _element("failure", _detail(outcome), type=outcome["check"], message=message.partition("\n")[0])
            )
        case "skipped":
            case.append(_element("skipped", message=message))
        case verdict:
            case.append(_element("skipped", message=f"{verdict}: {message}"))
    return case


def _detail(outcome: Mapping[str, Any]) -> str:
    keys = ("clause", "quantity", "error", "allowed", "ratio", "reproduce")
    lines = [outcome["message"], *(f"{key}: {outcome[key]}" for key in keys if outcome[key] is not None)]
    if outcome["divergence"]:
        place = ", ".join(f"{key} {value}" for key, value in outcome["divergence"].items() if value is not None)
        lines.append(f"first divergence: {place}")
    return "\n".join(lines)


def _element(tag: str, text: str = "", /, **attributes: Any) -> ET.Element:
    element = ET.Element(tag, {key: FORBIDDEN.sub("", str(value)) for key, value in attributes.items()})
    element.text = FORBIDDEN.sub("", text) or None
    return element
