"""joulemeter record"""

from __future__ import annotations

import sys
from pathlib import Path

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

app = common.app("Record only.")


@app.command()
def record(
    meter: common.MeterNames,
    output: common.Output = Path("results"),
    duration: common.Duration = "5s",
    supply: common.Supply = None,
    assume_voltage: common.AssumeVoltage = None,
    simulate: common.Simulate = False,
    load: common.LoadText = None,
    faults: common.Faults = None,
    add: common.Add = False,
    serial: common.Serial = None,
    setting: common.Setting = None,
    name: common.NameOption = None,
    note: common.NoteOption = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Record only; `joulemeter analyze` makes numbers of it later."""
    from joulemeter import session
    from joulemeter.errors import UsageError
    from joulemeter.plan import Plan

    meters = common.meters(meter, supply, assume_voltage, setting, simulate=simulate, quiet=quiet)
    if not meters:
        raise UsageError("There is nothing to record without a meter.", "Name one with --meter.")
    plan = Plan(
        meters=meters,
        output=output,
        name=name or meters[0].key,
        simulate=simulate,
        load=load,
        add=add,
        serial=serial,
        faults=faults,
        duration_s=units.parse_positive(duration or "5s", "s"),
        note=note,
        argv=tuple(sys.argv),
    )
    with common.progress(quiet=quiet) as progress:
        folder, trouble = session.record(plan, progress)
    if json:
        from json import dumps

        emit(dumps({"run": str(folder), "complete": trouble is None}))
    else:
        emit(str(folder))
    if trouble is not None:
        raise trouble
