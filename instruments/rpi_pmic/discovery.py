"""Whether this host is a Pi 5."""

from __future__ import annotations

from joulemeter.boardfiles.wire import parse_files
from joulemeter.errors import JouleMeterError, NotFoundError
from joulemeter.instrument import Found
from joulemeter.workload import agent

from . import driver, wire


def discover(key: str, root: str) -> list[Found]:
    root = root.rstrip("/")
    patterns = [f"{root}/{name}" for name in driver.MODELS]
    try:
        model = driver.model_of(parse_files(agent.files(patterns)), root)
    except NotFoundError:
        return []
    problem = remedy = None
    try:
        driver.listing_of(parse_files(agent.files([], [[*wire.ARGV]])).outputs[0])
    except JouleMeterError as error:
        problem, remedy = error.what, error.remedy
    return [Found(key=key, address="", description=model, problem=problem, remedy=remedy)]
