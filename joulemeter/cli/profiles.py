"""joulemeter profiles"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("List, show or validate device, battery, model and rig profiles.")

Kind = Annotated[str | None, typer.Argument(help="devices, batteries, models or rigs.")]


@app.command("list")
def list_(kind: Kind = None, json: common.Json = False) -> None:
    """Names of the profiles that ship, by kind."""
    from json import dumps

    from joulemeter import profile

    found = {each: profile.names(each) for each in ([kind] if kind else profile.KINDS)}
    lines = [line for each, names in found.items() for line in common.wrap(f"{each}: {', '.join(names)}", "  ")]
    emit(dumps(found, indent=2) if json else "\n".join(lines))


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="devices, batteries, models or rigs.")],
    name: Annotated[str, typer.Argument(help="A name from `profiles list`, or a file.")],
) -> None:
    """A profile as it stands, with the sources of its figures."""
    from joulemeter import profile

    emit(profile.find(kind, name).text)


@app.command()
def validate(
    files: Annotated[list[Path] | None, typer.Argument(help="Profile files; all that ship if none is named.")] = None,
    kind: Annotated[str | None, typer.Option(help="What the files describe; by their folder if not named.")] = None,
) -> None:
    """Read profiles and say what is wrong with them."""
    from joulemeter import profile

    if files:
        for path in files:
            profile.validate(path, kind)
            emit(f"{path}: good")
        return
    for each in profile.KINDS:
        for name in profile.names(each):
            profile.load(each, name)
            emit(f"{each}/{name}: good")
