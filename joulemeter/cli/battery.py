"""joulemeter battery"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joulemeter import units
from joulemeter.cli import common
from joulemeter.cli.common import emit

if TYPE_CHECKING:
    from joulemeter.battery import Capacitor, Event, Regulator

app = common.app("How long a battery lasts under a measured run or a table of currents.")


@app.command()
def battery(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="A run directory or its result.json, a zip of one, or a foreign recording."
        ),
    ] = None,
    profile: Annotated[Path | None, typer.Option(metavar="FILE", help="A table of what the device draws.")] = None,
    cell: Annotated[str, typer.Option(metavar="CELL", help="Such as CR2032, L91, 2xAA; `profiles list` tells.")] = "",
    every: Annotated[str | None, typer.Option(metavar="10s", help="One inference each so long.")] = None,
    per_hour: Annotated[float | None, typer.Option(help="Inferences an hour.")] = None,
    per_day: Annotated[float | None, typer.Option(help="Inferences a day.")] = None,
    sleep_current: Annotated[str | None, typer.Option(metavar="1.2uA", help="What is drawn in between.")] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=10mA/3ms@10min", help="Something rarer on top: steps CURRENT/DURATION,... @PERIOD."),
    ] = None,
    cutoff: Annotated[
        str | None, typer.Option(metavar="1.8V", help="The lowest voltage at which the device works.")
    ] = None,
    voltage: Annotated[
        str | None, typer.Option(metavar="3.0V", help="What the run was measured at, where it does not say.")
    ] = None,
    capacitor: Annotated[str | None, typer.Option(metavar="100uF", help="Across the cell.")] = None,
    leakage: Annotated[str | None, typer.Option(metavar="10Mohm", help="Of the capacitor.")] = None,
    derating: Annotated[
        str | None, typer.Option(metavar="50%", help="What is left of the capacitor under its voltage.")
    ] = None,
    regulator: Annotated[str, typer.Option(help="direct, ldo or dcdc.")] = "direct",
    output_voltage: Annotated[str | None, typer.Option(metavar="1.8V", help="Of the regulator.")] = None,
    dropout: Annotated[str | None, typer.Option(metavar="100mV", help="Of the regulator.")] = None,
    quiescent: Annotated[str | None, typer.Option(metavar="500nA", help="Of the regulator.")] = None,
    efficiency: Annotated[str | None, typer.Option(metavar="85%", help="Of a DC-DC converter.")] = None,
    temperature: Annotated[str, typer.Option(metavar="25C", help="Where the device is.")] = "25C",
    wanted: Annotated[
        str | None, typer.Option("--for", metavar="1y", help="A life to be met: which period, which capacitor.")
    ] = None,
    harvest: Annotated[str | None, typer.Option(metavar="100uW", help="Harvested power, on average.")] = None,
    trigger: Annotated[str | None, typer.Option(help="Of the run, instead of the one recorded.")] = None,
    inferences_per_window: common.PerWindow = None,
    convention: Annotated[str, typer.Option(help="native or eembc, of EEMBC recordings.")] = "native",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rail against age and life against period: .png, .svg or .pdf.")
    ] = None,
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """How long a battery lasts under a measured run or a table of currents, and what ends its life."""
    from joulemeter import lifetime, loading, loadprofile
    from joulemeter.capture import Basis
    from joulemeter.cli import batterytext
    from joulemeter.errors import UsageError

    if (source is None) == (profile is None):
        raise UsageError("A battery needs a load: a run or a table of currents.", "Give a run directory or --profile.")
    if not cell:
        raise UsageError("Nobody says which battery.", "Give --cell, such as --cell CR2032.")
    question = lifetime.Question(
        cell=cell,
        every_s=_period(every, per_hour, per_day),
        rest_a=units.parse(sleep_current, "A") if sleep_current else None,
        voltage_v=units.parse_positive(voltage, "V") if voltage else None,
        cutoff_v=units.parse_positive(cutoff, "V") if cutoff else None,
        temperature_c=units.parse(temperature, "degC"),
        capacitor=_capacitor(capacitor, leakage, derating),
        regulator=_regulator(regulator, output_voltage, dropout, quiescent, efficiency),
        events=tuple(map(_event, event or [])),
        wanted_s=units.parse_positive(wanted, "s") if wanted else None,
        harvested_w=units.parse_positive(harvest, "W") if harvest else None,
    )
    with common.progress(quiet=quiet) as progress:
        progress("projecting")
        if profile is not None:
            table = loadprofile.read(profile)
            load = loadprofile.load_of(table, every_s=question.every_s, rest_a=question.rest_a)
            found = lifetime.ask(question, load, Basis.DECLARED)
        else:
            from joulemeter.physics.analyze import Request, analyze

            request = Request(trigger=trigger, inferences_per_window=inferences_per_window, convention=convention)
            path = source or Path()
            with loading.opened(loading.run_folder(path) if path.name == "result.json" else path) as recording:
                found = lifetime.of_run(analyze(recording, request), recording, question)
        if plot is not None:
            from joulemeter.report.lifeplot import draw

            progress(f"drawing {plot}")
            draw(found, plot)
    emit(batterytext.as_json(found) if json else batterytext.render(found))


def _period(every: str | None, per_hour: float | None, per_day: float | None) -> float | None:
    from joulemeter.errors import UsageError

    if sum(given is not None for given in (every, per_hour, per_day)) > 1:
        raise UsageError("--every, --per-hour and --per-day say the same thing.", "Give one of them.")
    for rate, span_s in ((per_hour, 3600.0), (per_day, 86400.0)):
        if rate is not None:
            if rate <= 0:
                raise UsageError(f"{rate:g} inferences make no schedule.", "Give a number above zero.")
            return span_s / rate
    return units.parse_positive(every, "s") if every else None


def _capacitor(farad: str | None, leakage: str | None, derating: str | None) -> Capacitor | None:
    from joulemeter.battery import Capacitor
    from joulemeter.errors import UsageError

    if farad is None:
        if leakage or derating:
            raise UsageError("--leakage and --derating belong to a capacitor.", "Give --capacitor too.")
        return None
    return Capacitor(
        farad=units.parse_positive(farad, "F"),
        leakage_ohm=units.parse_positive(leakage, "ohm") if leakage else None,
        derating=units.parse_positive(derating, "1") if derating else 1.0,
    )


def _regulator(
    stage: str, output: str | None, dropout: str | None, quiescent: str | None, efficiency: str | None
) -> Regulator:
    from joulemeter.battery import Regulator, Stage
    from joulemeter.errors import UsageError

    if stage not in list(Stage):
        raise UsageError(f"{stage!r} is no regulator.", f"Choose one of: {', '.join(Stage)}.")
    return Regulator(
        stage=Stage(stage),
        output_v=units.parse_positive(output, "V") if output else None,
        dropout_v=units.parse(dropout, "V") if dropout else 0.0,
        quiescent_a=units.parse(quiescent, "A") if quiescent else 0.0,
        efficiency=units.parse_positive(efficiency, "1") if efficiency else 1.0,
    )


def _event(text: str) -> Event:
    """NAME=CURRENT/DURATION,...@PERIOD. Raises UsageError."""
    from joulemeter.battery import Event, steps
    from joulemeter.errors import UsageError

    name, equals, rest = text.partition("=")
    pulse, at, period = rest.rpartition("@")
    parts = [part.split("/") for part in pulse.split(",")]
    if not (name and equals and at) or any(len(part) != 2 for part in parts):
        raise UsageError(f"{text!r} is no event.", "Write NAME=CURRENT/DURATION@PERIOD: radio=10mA/3ms@10min.")
    values = [(units.parse(current, "A"), units.parse_positive(length, "s"), name) for current, length in parts]
    return Event(label=name, profile=steps(*values), every_s=units.parse_positive(period, "s"))
