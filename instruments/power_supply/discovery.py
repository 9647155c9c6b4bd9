"""The batteries of this host. Hosts that are reached by SSH are not looked for: nobody names them."""

from __future__ import annotations

from joulemeter.boardfiles.wire import parse_files
from joulemeter.errors import JouleMeterError
from joulemeter.instrument import Found
from joulemeter.workload import agent

from . import driver, wire


def discover(key: str, root: str) -> list[Found]:
    """All batteries of the machine together, with what stands in their way."""
    files = agent.files([f"{root.rstrip('/')}/{pattern}" for pattern in wire.PATTERNS])
    batteries = [one for one in wire.supplies(parse_files(files)) if one.battery]
    if not batteries:
        return []
    names = ", ".join(" ".join(filter(None, (one.name, one.texts.get("model_name")))) for one in batteries)
    problem = remedy = None
    try:
        driver.choose(batteries, driver.AUTO)
    except JouleMeterError as error:
        problem, remedy = error.what, error.remedy
    return [Found(key=key, address="", description=names, problem=problem, remedy=remedy)]
