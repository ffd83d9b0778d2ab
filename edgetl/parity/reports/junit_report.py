"""The report as JUnit XML, which CI systems show as tests.

There is one test case for each finding, and one for each stage of each runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from edgetl.parity.results import AgainstResult, CheckResult, Finding, RuntimeResult

_NOT_XML = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_PLURALS = {"failure": "failures", "error": "errors", "skipped": "skipped"}

Outcome = Literal["failure", "error", "skipped"]


@dataclass(frozen=True)
class JUnitCase:
    """One test case; ``outcome`` None: it passed."""

    group: str
    name: str
    outcome: Outcome | None = None
    message: str = ""
    seconds: float = 0.0


def as_junit(result: CheckResult | AgainstResult) -> str:
    """An XML document with one test suite, without the runtimes that only give information."""
    if isinstance(result, CheckResult):
        name = f"edgetl check {result.bundle}"
        cases = [_finding_case("bundle", finding) for finding in result.findings]
        for run in result.runtimes:
            if run.status != "shown":
                cases += _runtime_cases(run)
    else:
        name = f"edgetl check {result.new} against {result.old}"
        cases = [_finding_case("against", gate) for gate in result.gates]
    return _document(name, cases, result.seconds, result.machine)


def error_as_junit(name: str, message: str) -> str:
    """An XML document with one test case: nothing was compared, and why."""
    return _document(name, [JUnitCase("check", "comparison", "error", message)], 0, {})


def _document(
    name: str, cases: Sequence[JUnitCase], seconds: float, machine: Mapping[str, str]
) -> str:
    counts = {"tests": str(len(cases))} | {
        plural: str(sum(case.outcome == outcome for case in cases))
        for outcome, plural in _PLURALS.items()
    }
    root = ElementTree.Element("testsuites", {"name": "edgetl", **counts})
    facts = {"name": _xml_text(name), **counts, "time": f"{seconds:.3f}"}
    suite = ElementTree.SubElement(root, "testsuite", facts)
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in machine.items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": _xml_text(value)})
    for case in cases:
        facts = {
            "classname": _xml_text(case.group),
            "name": _xml_text(case.name),
            "time": f"{case.seconds:.3f}",
        }
        element = ElementTree.SubElement(suite, "testcase", facts)
        if case.outcome:
            ElementTree.SubElement(element, case.outcome, {"message": _xml_text(case.message)})
    ElementTree.indent(root, " ")
    document = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{document}\n'


def _finding_case(group: str, finding: Finding) -> JUnitCase:
    return JUnitCase(group, finding.name, _failure_unless(finding.passed), finding.message)


def _runtime_cases(run: RuntimeResult) -> Iterator[JUnitCase]:
    if not run.stages:
        outcome: Outcome = "skipped" if run.status == "skipped" else "error"
        yield JUnitCase(run.name, "run", outcome, run.reason, run.seconds)
        return
    yield JUnitCase(run.name, "run", seconds=run.seconds)
    for stage in run.stages:
        cause = f"; likely cause: {run.cause}" if run.cause and run.departure == stage.stage else ""
        yield JUnitCase(run.name, stage.stage, _failure_unless(stage.passed), f"{stage}{cause}")
    flips = run.decisions.real_flips
    message = "; ".join(
        f"{flip.photo}: {flip.found!r} instead of {flip.expected!r}" for flip in flips
    )
    yield JUnitCase(run.name, "decision", _failure_unless(not flips), message)
    if run.departure == "probabilities" and all(stage.passed for stage in run.stages):
        # Some photos have no probabilities at all, which no stage shows.
        yield JUnitCase(run.name, "answers", "failure", run.reason)


def _failure_unless(passed: bool) -> Outcome | None:
    return None if passed else "failure"


def _xml_text(text: str) -> str:
    """``text`` without the control characters that XML 1.0 can't hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
