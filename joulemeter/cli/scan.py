"""joulemeter scan"""

from __future__ import annotations

from typing import Annotated

import typer

from joulemeter.cli import common
from joulemeter.cli.common import emit, plain

app = common.app("Meters that are connected, and what could be used.")


@app.command()
def scan(
    everything: Annotated[
        bool, typer.Option("--all", help="Every instrument that is supported, found or not.")
    ] = False,
    json: common.Json = False,
) -> None:
    """Meters that are connected, and what could be used if something were installed or permitted.

    That nothing is connected is an answer, not an error.
    """
    from json import dumps

    from joulemeter import registry

    modules = dict(registry.instruments())
    found = [device for module in modules.values() for device in module.discover()]
    if json:
        supported = [
            {"key": key, "models": module.INFO.models, "verified": module.INFO.verified, "extra": module.INFO.extra}
            for key, module in modules.items()
        ]
        emit(dumps({"found": plain(found), "supported": plain(supported)}, indent=2))
        return
    for device in found:
        emit(f"{device.key}@{device.address}  {device.description}")
        if device.problem:
            emit("\n".join(common.wrap(f"{device.problem} {device.remedy or ''}", "    ", "    ")))
    if not found:
        emit("No meter is connected.")
    emit("")
    emit("Supported:" if everything else f"Supported: {', '.join(modules)} (--all tells more).")
    for key, module in modules.items() if everything else ():
        info = module.INFO
        needs = f", needs joulemeter[{info.extra}]" if info.extra else ""
        emit("\n".join(common.wrap(f"{key:10} {', '.join(info.models)}{needs}; verified: {info.verified}", " " * 11)))
    emit("No meter at hand? `joulemeter demo`, or --simulate with any command.")
