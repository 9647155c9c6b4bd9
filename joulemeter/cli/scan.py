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

    from joulemeter import diagnosis, registry

    modules = dict(registry.instruments())
    found = {key: list(module.discover()) for key, module in modules.items()}
    units = [unit for some in found.values() for unit in some]
    if json:
        supported = [
            {
                "key": key,
                "models": module.INFO.models,
                "state": diagnosis.state(module.INFO, found[key]),
                "verified": module.INFO.verified,
                "verified_note": module.INFO.verified_note,
                "extra": module.INFO.extra,
            }
            for key, module in modules.items()
        ]
        emit(dumps({"found": plain(units), "supported": plain(supported)}, indent=2))
        return
    for unit in units:
        emit(f"{unit.key}@{unit.address}  {unit.description}")
        if unit.problem:
            emit("\n".join(common.wrap(f"{unit.problem} {unit.remedy or ''}", "    ", "    ")))
    if not units:
        emit("No meter is connected.")
    emit("")
    if everything:
        emit(f"{'meter':13} {'state':26} verified with")
        for key, module in modules.items():
            info = module.INFO
            emit(f"{key:13} {diagnosis.state(info, found[key]):26} {info.verified}")
            emit("\n".join(common.wrap(f"{info.maker}: {', '.join(info.models)}", " " * 14, " " * 14)))
    else:
        emit("\n".join(common.wrap(f"Supported: {', '.join(modules)} (--all tells more).", "  ")))
    emit("No meter at hand? `joulemeter demo`, or --simulate with any command.")
