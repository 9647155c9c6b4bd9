"""The counters of this host. Boards that are reached by SSH are not looked for: nobody names them."""

from __future__ import annotations

from joulemeter.boardfiles.wire import parse_files
from joulemeter.errors import AccessError, JouleMeterError
from joulemeter.instrument import Found
from joulemeter.workload import agent

from . import domains, wire


def discover(key: str, root: str) -> list[Found]:
    """The total of the usual domain, with what stands in its way; nothing where there is no tree."""
    files = agent.files([f"{root.rstrip('/')}/{pattern}" for pattern in wire.PATTERNS])
    zones = wire.zones(parse_files(files))
    if not zones:
        return []
    cpu = agent.cpu_model() or "this host"
    try:
        chosen = domains.choose(zones, domains.AUTO)
    except AccessError as error:
        return [Found(key=key, address="", description=cpu, problem=error.what, remedy=error.remedy)]
    except JouleMeterError:
        return []
    return [Found(key=key, address="", description=f"{cpu}: {domains.listed(chosen)}")]
