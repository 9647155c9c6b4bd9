"""joulemeter calibrate"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

if TYPE_CHECKING:
    from joulemeter.physics.calibration import Calibration

app = common.app("Gain and offset of a meter from a known load, kept by serial number.")


@app.command()
def calibrate(
    meter: Annotated[
        str, typer.Option("--meter", "-m", metavar="KEY[@ADDRESS]", help="Such as ppk2 or ppk2@/dev/ttyACM1.")
    ],
    load: Annotated[
        str | None, typer.Option(metavar="100ohm±0.1%", help="The resistor connected in place of the board.")
    ] = None,
    supply: Annotated[
        list[str] | None, typer.Option(metavar="3.0V", help="The meter powers it with this voltage; may be repeated.")
    ] = None,
    voltage: Annotated[
        list[str] | None,
        typer.Option(metavar="2.998V±0.05%", help="What a voltmeter shows across it, one for each --supply."),
    ] = None,
    zero: Annotated[bool, typer.Option("--zero", help="Nothing is connected: the offset.")] = False,
    reference: Annotated[
        str | None,
        typer.Option(metavar="KEY[@ADDRESS]", help="A better meter in series, on any load that holds still."),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Fit the points of the last calibration too.")] = False,
    serial: Annotated[
        str | None, typer.Option("--meter-serial", metavar="NAME", help="For a meter that tells no number.")
    ] = None,
    stability: Annotated[
        str, typer.Option(metavar="0.3%", help="How far the meter moves between two days, standard uncertainty.")
    ] = "0.3%",
    duration: Annotated[str, typer.Option(metavar="2s", help="Record each point for so long.")] = "2s",
    setting: common.Setting = None,
    simulate: common.Simulate = False,
    output: common.Output = Path("results"),
    json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON and nothing else.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Gain and offset per range, by the resistor's and the voltmeter's tolerance instead of the maker's.

    One voltage tells the gain, two (or one and --zero --add) tell gain and offset.
    """
    from joulemeter import calibrating, calibrations
    from joulemeter.capture import Distribution, Limit
    from joulemeter.errors import UsageError
    from joulemeter.instrument import Options
    from joulemeter.plan import parse_meter

    chosen = parse_meter(meter, Options(settings=common.settings(setting)))
    if chosen is None:
        raise UsageError("There is nothing to calibrate without a meter.", "Name one with --meter.")
    ohms = units.parse_toleranced(load, "ohm") if load else None
    if ohms is not None and (ohms[0] <= 0 or ohms[1] == 0):
        raise UsageError(f"{load!r} is no resistor of known tolerance.", "Write it such as 100ohm±0.1%.")
    volts = tuple(units.parse_toleranced(text, "V") for text in voltage or [])
    if any(value <= 0 or limit == 0 for value, limit in volts):
        raise UsageError("A measured voltage needs its tolerance.", "Write it such as 2.998V±0.05%.")
    plan = calibrating.CalibrationPlan(
        meter=chosen,
        output=output,
        ohms=ohms,
        supplies=tuple(units.parse_positive(text, "V") for text in supply or []),
        volts=volts,
        zero=zero,
        reference=parse_meter(reference, Options()) if reference else None,
        serial=serial,
        add=add,
        stability=Limit(value=units.parse(stability, "1"), distribution=Distribution.NORMAL),
        duration_s=units.parse_positive(duration, "s"),
        simulate=simulate,
        argv=tuple(sys.argv),
    )
    with common.progress(quiet=quiet) as progress:
        path, made = calibrating.calibrate(plan, progress)
    if json:
        from json import dumps

        emit(dumps({"file": str(path), "sha256": calibrations.digest(made), **common.plain(made)}))
    else:
        emit(_text(made, path))


def _text(made: Calibration, path: Path) -> str:
    lines = [f"Calibration of {made.model} {made.serial} against {made.reference}"]
    if made.simulated:
        lines.append("SIMULATED: it is never applied to a real meter.")
    for row in made.corrections:
        where = row.channel if row.range is None else f"{row.channel}, range {row.range}"
        unit = "W" if row.channel == "power" else "A"
        gain = "as the maker states" if row.u_gain is None else f"{row.gain:.5f} ± {2 * row.u_gain:.5f}"
        offset = "unknown" if row.u_offset is None else units.show_uncertain(row.offset, 2 * row.u_offset, unit)
        lines += [f"  {where}: gain {gain}, offset {offset}"]
    lines += ["  (± is the expanded uncertainty, k = 2)", f"Kept in {path}"]
    return "\n".join(lines)
