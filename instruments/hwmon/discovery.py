"""Which power sensors this host has. Boards that are reached by SSH are not looked for: nobody names them."""

from __future__ import annotations

from joulemeter.boardfiles.reach import local
from joulemeter.boardfiles.wire import parse_files
from joulemeter.errors import JouleMeterError
from joulemeter.instrument import Found
from joulemeter.workload import agent

from . import rails


def discover(key: str, root: str) -> list[Found]:
    """Every rail, with what stands in its way."""
    patterns = [f"{root.rstrip('/')}/{pattern}" for pattern in rails.PATTERNS]
    files = parse_files(agent.files(patterns))
    return [_found(key, rail) for rail in rails.rails(files)]


def _found(key: str, rail: rails.Rail) -> Found:
    problem = remedy = None
    try:
        rails.refuse(rail)
    except JouleMeterError as error:
        problem, remedy = error.what, error.remedy
    return Found(
        key=key,
        address=next((name for name in (rail.label, rail.sensor) if name and local(name)), ""),
        description=f"{rail.name}, {rail.sensor}" if rail.label else rail.sensor,
        problem=problem,
        remedy=remedy,
    )
