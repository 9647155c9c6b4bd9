"""joulemeter conform"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("Hold a driver to the instrument contract.")


@app.command()
def conform(
    meter: Annotated[str, typer.Argument(metavar="KEY[@ADDRESS]", help="Without an address its simulator is used.")],
    simulate: Annotated[bool, typer.Option("--simulate", help="The simulator, also if an address is given.")] = False,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Hold a driver to the instrument contract. Exit code 1 if it breaks it."""
    from json import dumps

    from joulemeter import registry
    from joulemeter.errors import JouleMeterError
    from joulemeter.testing.contract import CHECKS, Broken, Skipped, Subject

    key, _, address = meter.partition("@")
    subject = Subject(module=registry.instrument(key), address=None if simulate or not address else address)
    rows: list[tuple[str, str, str]] = []
    with common.progress(quiet=quiet) as progress:
        for check in CHECKS:
            name = check.__name__.replace("_", " ")
            progress(name)
            try:
                check(subject)
                rows.append(("kept", name, ""))
            except Skipped as reason:
                rows.append(("skipped", name, str(reason)))
            except (Broken, JouleMeterError) as error:
                rows.append(("BROKEN", name, str(error)))
    if json:
        emit(dumps([{"outcome": outcome, "check": name, "detail": detail} for outcome, name, detail in rows], indent=2))
    else:
        for outcome, name, detail in rows:
            emit("\n".join(common.wrap(f"{outcome:8} {name}{': ' if detail else ''}{detail}", " " * 9)))
    if any(outcome == "BROKEN" for outcome, _, _ in rows):
        sys.exit(1)
