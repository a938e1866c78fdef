"""What a run of the suite leaves behind: report.json, junit.xml and index.html."""

import copy
import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from rnnzoo.conformance import reports
from rnnzoo.spec.errors import FileError

VERDICTS = ("passed", "failed", "skipped", "ill-conditioned", "known failure")
HOSTILE = (
    "<script>alert(1)</script> </script> <!-- ]]> & \"'` \x00\x01\x1b[31m\x7f \ud800 \ufffe \u2028 \U0001f600 <![CDATA["
)
COUNTED = {"failed": "failures", "skipped": "skipped", "ill-conditioned": "skipped", "known failure": "skipped"}


def outcome(verdict: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "backend": "torch", "item": f"results-float32-{verdict}", "check": "results", "clause": "4",
        "dtype": "float32", "case": verdict, "verdict": verdict, "ratio": 0.25, "quantity": "outputs",
        "error": 1e-7, "allowed": 4e-7, "seconds": 0.25, "divergence": None, "reproduce": None,
        "message": "" if verdict == "passed" else f"why it is {verdict}",
    }  # fmt: skip
    return {**found, **changes}


def divergence(**changes: Any) -> dict[str, Any]:
    found = {
        "tensor": "outputs", "layer": 0, "direction": "backward", "step": 3, "row": 1, "unit": 2,
        "expected": 0.125, "got": 0.5, "allowed": 1e-8,
    }  # fmt: skip
    return {**found, **changes}


def report(*outcomes: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1, "rnnzoo": "0.1.0", "started": "2026-03-01T10:20:30.5Z", "seconds": 93.125, "quick": False,
        "arguments": ["--report", "a folder"],
        "machine": {"python": "3.11.7", "platform": "Linux", "processor": "x86_64", "cores": 2, "numpy": "2.4.6"},
        "backends": [{"name": "torch", "versions": {"torch": "2.13.0"}}, {"name": "numpy", "versions": {}}],
        "not_checked": ["backend 'tf': the package 'tensorflow' is not installed"],
        "checks": [{"name": "results", "clause": "3 to 8", "title": "Outputs and final states."}],
        "outcomes": list(outcomes),
    }  # fmt: skip


def every_verdict() -> dict[str, Any]:
    failed = outcome(
        "failed", divergence=divergence(), reproduce="rnnzoo check --item results-float32-failed", ratio=7.5
    )
    return report(
        failed, *(outcome(verdict) for verdict in VERDICTS if verdict != "failed"), outcome("passed", backend="numpy")
    )


def schema() -> Any:
    return json.loads(resources.files(reports).joinpath("report.schema.json").read_text("utf-8"))


def validate(found: Any) -> None:
    jsonschema.Draft202012Validator(schema()).validate(found)


def written(folder: Path, data: dict[str, Any]) -> tuple[Any, ET.Element, str]:
    paths = reports.write(folder, data)
    assert [path.name for path in paths] == ["report.json", "junit.xml", "index.html"]
    data, junit, page = (path.read_bytes().decode("utf-8") for path in paths)
    return json.loads(data, parse_constant=pytest.fail), ET.fromstring(junit), page


def embedded(page: str) -> Any:
    """The data as a browser finds it: the text of the element up to the first end tag."""
    found = re.search(r'<script type="application/json" id="report">(.*?)</script', page, re.DOTALL | re.IGNORECASE)
    assert found is not None
    return json.loads(found[1], parse_constant=pytest.fail)


# --- report.json ---


def test_the_json_is_the_data_and_keeps_to_its_schema(tmp_path: Path) -> None:
    data = every_verdict()
    found, _, _ = written(tmp_path, data)
    assert found == data
    validate(found)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("outcomes", 0, "verdict"), "maybe"),
        (("outcomes", 0, "ratio"), "1"),
        (("outcomes", 0, "surplus"), 1),
        (("outcomes", 0, "divergence", "direction"), "sideways"),
        (("started",), "yesterday"),
        (("version",), 2),
    ],
)
def test_the_schema_refuses_what_is_no_report(place: tuple[Any, ...], value: Any) -> None:
    data = every_verdict()
    target: Any = data
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(data)


def test_numbers_that_json_lacks_are_written_by_name(tmp_path: Path) -> None:
    place = divergence(got=math.nan, expected=-math.inf)
    found, junit, page = written(tmp_path, report(outcome("failed", ratio=math.inf, error=math.inf, divergence=place)))
    validate(found)
    (one,) = found["outcomes"]
    assert (one["ratio"], one["divergence"]["got"], one["divergence"]["expected"]) == ("Infinity", "NaN", "-Infinity")
    assert "got NaN" in (junit.findtext(".//failure") or "")
    assert one["divergence"] in embedded(page)["outcomes"]["rows"][0]


def test_an_outcome_is_a_line_of_the_json(tmp_path: Path) -> None:
    data = every_verdict()
    reports.write(tmp_path, data)
    lines = (tmp_path / "report.json").read_text("utf-8").splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines if '"verdict"' in line] == data["outcomes"]


def test_a_report_of_nothing_is_a_report(tmp_path: Path) -> None:
    found, junit, page = written(tmp_path, report())
    validate(found)
    assert [suite.get("tests") for suite in junit] == ["0", "0"]
    assert embedded(page)["outcomes"]["rows"] == []


# --- junit.xml ---


def test_each_backend_is_a_suite_whose_counts_are_those_of_the_outcomes(tmp_path: Path) -> None:
    data = every_verdict()
    _, junit, _ = written(tmp_path, data)
    assert [suite.get("name") for suite in junit] == ["torch", "numpy"]
    for suite in junit:
        own = [outcome for outcome in data["outcomes"] if outcome["backend"] == suite.get("name")]
        expected = {"tests": len(own), "failures": 0, "errors": 0, "skipped": 0}
        for one in own:
            if one["verdict"] in COUNTED:
                expected[COUNTED[one["verdict"]]] += 1
        assert {key: int(suite.get(key, "")) for key in expected} == expected
        assert len(suite.findall("testcase")) == len(own)
        assert len(suite.findall(".//failure")) == expected["failures"]
        assert len(suite.findall(".//skipped")) == expected["skipped"]
        assert float(suite.get("time", "")) == sum(one["seconds"] for one in own)


def test_the_xml_has_the_elements_that_readers_ask_for_in_their_order(tmp_path: Path) -> None:
    _, junit, _ = written(tmp_path, every_verdict())
    assert (junit.tag, junit.attrib) == ("testsuites", {})
    for index, suite in enumerate(junit):
        tags = [child.tag for child in suite]
        assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
        assert suite.get("id") == str(index)
        assert suite.get("timestamp") == "2026-03-01T10:20:30"
        assert suite.get("hostname") and suite.get("package")
        for case in suite.iter("testcase"):
            assert set(case.attrib) == {"classname", "name", "time"} and len(case) <= 1
            assert re.fullmatch(r"\d+\.\d{3}", case.get("time", ""))


def test_a_failure_tells_message_place_and_command(tmp_path: Path) -> None:
    _, junit, _ = written(tmp_path, every_verdict())
    case = junit.find(".//testcase[failure]")
    assert case is not None
    assert (case.get("classname"), case.get("name")) == ("torch.results", "results-float32-failed")
    failure = case.find("failure")
    assert failure is not None and (failure.get("message"), failure.get("type")) == ("why it is failed", "results")
    lines = (failure.text or "").splitlines()
    assert "reproduce: rnnzoo check --item results-float32-failed" in lines
    assert "ratio: 7.5" in lines and "clause: 4" in lines
    assert (
        "first divergence: tensor outputs, layer 0, direction backward, step 3, row 1, unit 2, "
        "expected 0.125, got 0.5, allowed 1e-08"
    ) in lines


def test_what_has_no_verdict_is_skipped_and_says_why(tmp_path: Path) -> None:
    _, junit, _ = written(tmp_path, every_verdict())
    assert [skipped.get("message") for skipped in junit.iter("skipped")] == [
        "why it is skipped",
        "ill-conditioned: why it is ill-conditioned",
        "known failure: why it is known failure",
    ]


def test_the_properties_name_machine_versions_and_arguments(tmp_path: Path) -> None:
    _, junit, _ = written(tmp_path, every_verdict())
    torch, numpy = ({p.get("name"): p.get("value") for p in suite.iter("property")} for suite in junit)
    assert torch["torch"] == "2.13.0" and "torch" not in numpy
    assert torch["rnnzoo"] == "0.1.0" and torch["python"] == "3.11.7" and torch["arguments"] == "--report a folder"


# --- any text ---


def test_hostile_text_reaches_every_file_and_breaks_none(tmp_path: Path) -> None:
    place = divergence(tensor=HOSTILE)
    one = outcome(
        "failed", item=HOSTILE, case=HOSTILE, message=HOSTILE, quantity=HOSTILE, reproduce=HOSTILE, divergence=place
    )
    data = report(one, outcome("skipped", message=HOSTILE))
    data["backends"][0]["versions"]["torch"] = HOSTILE
    found, junit, page = written(tmp_path, data)
    assert found == data
    assert one["message"] in embedded(page)["outcomes"]["rows"][0]
    assert page.count("<script>") == 1 and "<!--" not in page
    sane = re.sub("[\x00\x01\x1b\ud800\ufffe]", "", HOSTILE)
    assert [case.get("name") for case in junit.iter("testcase")] == [sane, "results-float32-skipped"]
    assert [skipped.get("message") for skipped in junit.iter("skipped")] == [sane]
    assert [failure.get("message") for failure in junit.iter("failure")] == [sane]


def test_a_backend_that_only_an_outcome_names_is_reported(tmp_path: Path) -> None:
    _, junit, page = written(tmp_path, report(outcome("passed", backend="jax")))
    assert [suite.get("name") for suite in junit] == ["torch", "numpy", "jax"]
    assert embedded(page)["names"] == ["torch", "numpy", "jax"]


# --- files ---


def test_the_page_of_the_largest_run_stays_below_six_megabytes(tmp_path: Path) -> None:
    names = (f"gradients-float32-stacked_bi_rnn-tanh-double-concat-B3-T7-{index}" for index in range(15_000))
    outcomes = [
        outcome(
            "passed",
            item=name,
            case=name,
            ratio=1 / 3,
            error=1e-7 / 3,
            allowed=4e-7 / 3,
            quantity="layers.0.forward.bias",
        )
        for name in names
    ]
    reports.write(tmp_path, report(*outcomes))
    assert (tmp_path / "index.html").stat().st_size < 6e6


def test_missing_folders_are_made_and_old_files_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    reports.write(folder, report())
    written(folder, every_verdict())
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "junit.xml", "report.json"]


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match=re.escape(f"{folder}: cannot be made for the report")):
            reports.write(folder, report())


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports.write(tmp_path, report())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FileError, match=r"report\.json: cannot be written: No space left on device"):
        reports.write(tmp_path, every_verdict())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_writing_leaves_the_data_as_it_was(tmp_path: Path) -> None:
    data = every_verdict()
    before = copy.deepcopy(data)
    reports.write(tmp_path, data)
    assert data == before
