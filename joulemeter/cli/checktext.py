"""A check as text, Markdown, JUnit XML and GitHub annotations. What comes from files is text in all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from joulemeter.cli import inert as harmless
from joulemeter.cli.common import wrap
from joulemeter.cli.text import SIMULATED
from joulemeter.physics.regression import BY_RANKS
from joulemeter.physics.rules import Check, Finding

SCHEMA = "joulemeter.check/1"
TITLE = "JouleMeter check"


def _status(finding: Finding) -> str:
    if finding.passed:
        return "passed" if finding.resolved else "passed, not resolved"
    return "FAILED"


def _headline(check: Check) -> str:
    failed = sum(not finding.passed for finding in check.findings)
    of = f"{len(check.findings)} rule" + ("s" if len(check.findings) > 1 else "")
    return f"FAILED: {failed} of {of}" if failed else f"passed: {of}"


def _subject(check: Check) -> str:
    against = (
        ""
        if check.baseline is None
        else f" against {harmless.plain(check.baseline.name)} ({_day(check.baseline.created)})"
    )
    return f"{harmless.plain(check.result.name)} ({_day(check.result.created)}){against}"


def _day(created: str) -> str:
    return harmless.plain(created)[:16].replace("T", " ")


def _basis(check: Check) -> Iterator[str]:
    """What the comparison rests on."""
    change = check.change
    if change is None:
        return
    if change.same_meter:
        gone = ", ".join(change.cancelled)
        yield (
            "Both results are of one meter in the same ranges: its gain error cancels"
            + (f" (gone from the ratio: {harmless.plain(gone)})." if gone else ".")
        )
    else:
        yield "The results are of different meters, ranges or calibrations: the accuracy of both is in the interval."
    steady = "" if change.method == BY_RANKS else " of steady windows"
    yield (
        f"Interval: {change.method}. Of pairs{steady} that do not differ at most 5 % fail; what differs between runs "
        "and not within them is not seen (--between-runs)."
    )


# -- terminal ----------------------------------------------------------------------------------------------------------


def render(check: Check) -> str:
    lines = [SIMULATED, ""] if check.simulated else []
    lines += wrap(f"{_headline(check)} · {_subject(check)}", "  ")
    for finding in check.findings:
        lines += wrap(harmless.plain(finding.text), "    ", f"  {finding.rule}: {_status(finding)}. ")
    for doubt in check.doubts:
        lines += wrap(harmless.plain(doubt.text), "    ", f"  doubt ({doubt.code}): ")
    for text in _basis(check):
        lines += wrap(text, "  ", "  ")
    return "\n".join(line for text in lines for line in _short(text))


def _short(line: str) -> Iterator[str]:
    """A word that is longer than a line, such as a name from a file, is cut."""
    for at in range(0, max(len(line), 1), 79):
        yield line[at : at + 79]


def plain(check: Check) -> dict[str, Any]:
    """The check in plain JSON types."""
    return {
        "schema": SCHEMA,
        "passed": check.passed,
        "simulated": check.simulated,
        "result": check.result.name,
        "baseline": None if check.baseline is None else check.baseline.name,
        "rules": [asdict(finding) for finding in check.findings],
        "change": None if check.change is None else asdict(check.change),
        "doubts": [asdict(doubt) for doubt in check.doubts],
    }


# -- Markdown ----------------------------------------------------------------------------------------------------------


def markdown(check: Check) -> str:
    """A summary for a pull request or a job."""
    lines = [f"### {'❌' if not check.passed else '✅'} {TITLE}: {_headline(check)}", ""]
    lines += [f"**{SIMULATED}**", ""] if check.simulated else []
    lines += [f"Result: {harmless.markdown(_subject(check))}", "", "| rule | limit | outcome | |", "|---|---|---|---|"]
    lines += [
        f"| {finding.rule} | {_limit(finding)} | {_status(finding)} | {harmless.markdown(finding.text)} |"
        for finding in check.findings
    ]
    if check.doubts:
        lines += ["", "Doubts:", ""]
        lines += [f"- `{doubt.code}` {harmless.markdown(doubt.text)}" for doubt in check.doubts]
    lines += [line for text in _basis(check) for line in ("", harmless.markdown(text))]
    return "\n".join(lines) + "\n"


def _limit(finding: Finding) -> str:
    from joulemeter.units import show

    return f"{finding.limit * 100:.3g} %" if finding.unit == "1" else show(finding.limit, finding.unit)


# -- JUnit -------------------------------------------------------------------------------------------------------------

# What XML 1.0 has a place for (section 2.2); ElementTree writes the rest as it is, and no parser takes it.
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(check: Check) -> bytes:
    """One test suite with a test case for each rule, as CI servers read it."""
    failures = sum(not finding.passed for finding in check.findings)
    counts = {"tests": str(len(check.findings)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", {"name": TITLE, **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": TITLE, "time": "0", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(check).items():
        ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(value)})
    for finding in check.findings:
        about = {
            "classname": f"joulemeter.{_xml(harmless.plain(check.result.name))}",
            "name": finding.rule,
            "time": "0",
        }
        case = ElementTree.SubElement(suite, "testcase", about)
        text = _xml(harmless.plain(finding.text))
        if finding.passed:
            ElementTree.SubElement(case, "system-out").text = f"{_status(finding)}: {text}"
        else:
            ElementTree.SubElement(case, "failure", {"message": text, "type": finding.rule}).text = text
    notes = [f"{doubt.code}: {harmless.plain(doubt.text)}" for doubt in check.doubts] + list(_basis(check))
    if notes:
        ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(notes))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _properties(check: Check) -> dict[str, str]:
    energy = check.result.energy_per_inference_j.median
    return {
        "result": harmless.plain(check.result.name),
        "baseline": "" if check.baseline is None else harmless.plain(check.baseline.name),
        "simulated": str(check.simulated).lower(),
        "energy_per_inference_j": "unknown" if energy is None else repr(energy),
    }


def _xml(text: str) -> str:
    return _NO_XML.sub(" ", text)


# -- GitHub ------------------------------------------------------------------------------------------------------------


def github(check: Check) -> str:
    """Workflow commands: an error for each rule that failed, a warning for what is not resolved and for each doubt."""
    lines = [
        _command("error" if not finding.passed else "warning", f"{TITLE}: {finding.rule}", finding.text)
        for finding in check.findings
        if not (finding.passed and finding.resolved)
    ]
    lines += [_command("warning", f"{TITLE}: {doubt.code}", doubt.text) for doubt in check.doubts]
    if not lines:
        lines = [_command("notice", TITLE, " ".join(finding.text for finding in check.findings))]
    return "\n".join(lines)


def _command(kind: str, title: str, text: str) -> str:
    """Escaped as actions/toolkit does (packages/core/src/command.ts)."""
    message = harmless.plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{message}"


def inert(text: str) -> str:
    """Text in which the runner of a workflow finds no command of its own, whatever a file holds."""
    return text.replace("::", ": :").replace("##[", "# #[")
