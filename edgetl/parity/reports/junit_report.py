"""The report as JUnit XML, which CI systems show as tests: one case a finding, and one a stage of each runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from edgetl.parity.results import AgainstResult, CheckResult, RuntimeResult

_NOT_XML = re.compile("[^\\t\\n\\r -\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_PLURALS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True)
class _Case:
    group: str
    name: str
    seconds: float = 0.0
    outcome: Literal["failure", "error", "skipped"] | None = None
    message: str = ""


def as_junit(result: CheckResult | AgainstResult) -> str:
    """An XML document of one test suite. Runtimes that are shown for information are no tests, and left out."""
    cases = list(
        _check_cases(result) if isinstance(result, CheckResult) else _against_cases(result)
    )
    name = f"edgetl check {result.bundle if isinstance(result, CheckResult) else f'{result.new} against {result.old}'}"
    counts = {"tests": str(len(cases))} | {
        plural: str(sum(case.outcome == outcome for case in cases))
        for outcome, plural in _PLURALS.items()
    }
    root = ElementTree.Element("testsuites", {"name": "edgetl", **counts})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": _xml_text(name), **counts, "time": f"{result.seconds:.3f}"}
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in result.machine.items():
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
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )


def _check_cases(result: CheckResult) -> Iterator[_Case]:
    for finding in result.findings:
        yield _Case(
            "bundle",
            finding.name,
            outcome=None if finding.passed else "failure",
            message=finding.message,
        )
    for run in result.runtimes:
        if run.status != "shown":
            yield from _runtime_cases(run)


def _runtime_cases(run: RuntimeResult) -> Iterator[_Case]:
    if not run.stages:
        yield _Case(
            run.name,
            "run",
            run.seconds,
            "skipped" if run.status == "skipped" else "error",
            run.reason,
        )
        return
    yield _Case(run.name, "run", run.seconds)
    for stage in run.stages:
        cause = f"; likely cause: {run.cause}" if run.cause and run.departure == stage.stage else ""
        yield _Case(
            run.name,
            stage.stage,
            outcome=None if stage.passed else "failure",
            message=f"{stage}{cause}",
        )
    flips = run.decisions.real_flips
    message = "; ".join(
        f"{flip.photo}: {flip.found!r} instead of {flip.expected!r}" for flip in flips
    )
    yield _Case(run.name, "decision", outcome="failure" if flips else None, message=message)
    if run.departure == "probabilities" and all(
        stage.passed for stage in run.stages
    ):  # answers are missing
        yield _Case(run.name, "answers", outcome="failure", message=run.reason)


def _against_cases(result: AgainstResult) -> Iterator[_Case]:
    for gate in result.gates:
        yield _Case(
            "against", gate.name, outcome=None if gate.passed else "failure", message=gate.message
        )


def _xml_text(text: str) -> str:
    """``text`` without the control characters that XML 1.0 can't hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
