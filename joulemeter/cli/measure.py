"""joulemeter measure"""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from joulemeter import units
from joulemeter.cli import common, text
from joulemeter.cli.common import emit
from joulemeter.errors import UsageError

app = common.app("Record a meter and a workload, and print energy per inference.")
_NONE: list[str] = []


@app.command()
def measure(
    meter: common.MeterNames = _NONE,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="A program to run as the workload.")
    ] = None,
    rig: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A set-up from `joulemeter profiles list rigs`, or a file; other options win."
        ),
    ] = None,
    workload: Annotated[str | None, typer.Option(metavar="KIND:TARGET", help="Such as tflite:MODEL.tflite.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="d0, d0:low, d0:falling-pairs, c1@1.65V, host, serial, shape, records.")
    ] = None,
    phase: common.Phases = None,
    add: common.Add = False,
    serial: common.Serial = None,
    sync_code: Annotated[
        bool, typer.Option("--sync-code", help="The workload plays a pattern that relates host and meter clocks.")
    ] = False,
    max_alignment: common.MaxAlignment = None,
    ambient: common.Ambient = None,
    calibrated_ago: common.CalibratedAgo = None,
    decoupling: common.Decoupling = None,
    cell: common.Cell = None,
    every: common.Every = None,
    supply: common.Supply = None,
    assume_voltage: common.AssumeVoltage = None,
    simulate: common.Simulate = False,
    load: common.LoadText = None,
    faults: common.Faults = None,
    duration: common.Duration = None,
    windows: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after so many windows.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="1%", help="Stop when the 95 % interval of the median is that narrow.")
    ] = None,
    inferences_per_window: common.PerWindow = None,
    warmup: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Inferences before the first window (a model: 10).")
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="2s", help="Record idle for so long first.")] = None,
    debounce: common.Debounce = None,
    timeout: Annotated[str, typer.Option(metavar="20s", help="Give up when no window completes for so long.")] = "20s",
    edge: Annotated[
        str | None,
        typer.Option(metavar="LINE", help="Toggle gpio:CHIP/LINE, rts:PORT or dtr:PORT around each window."),
    ] = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="What the model is fed: .npy, an image, a folder.")
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="True classes, for the accuracy.")] = None,
    delegate: Annotated[str | None, typer.Option(metavar="LIBRARY", help="Such as libedgetpu.so.1.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime of a tflite workload.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the workload's runtime.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Batch size of the workload.")] = None,
    workload_set: Annotated[
        list[str] | None, typer.Option("--workload-set", metavar="NAME=VALUE", help="Another option of the workload.")
    ] = None,
    board_set: Annotated[
        list[str] | None, typer.Option("--board-set", metavar="NAME=VALUE", help="An option of a simulated board.")
    ] = None,
    setting: common.Setting = None,
    format_: Annotated[str, typer.Option("--format", help="text, json, or mlperf.")] = "text",
    name: common.NameOption = None,
    note: common.NoteOption = None,
    output: common.Output = Path("results"),
    json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Record a meter and a workload, and print energy per inference.

    Without a workload the board runs by itself and the trigger says when. A command after -- is a workload too.
    """
    from joulemeter import profile, rigs, session
    from joulemeter.plan import Plan

    recipe = profile.find(profile.Rig, rig) if rig else None
    if not meter:
        if recipe is None:
            raise UsageError("Nothing says what measures.", "Name a --meter, or a --rig that has one.")
        meter = [recipe.profile.meter]
    asked = {
        "runtime": runtime, "threads": threads, "batch": batch, "delegate": delegate, "input": input_, "labels": labels,
    }  # fmt: skip
    options = {name: str(value) for name, value in asked.items() if value is not None}
    if command:
        workload = _command(workload)
        options["argv"] = dumps(command)
    plan = Plan(
        meters=common.meters(
            meter,
            supply,
            assume_voltage,
            setting,
            trigger=trigger,
            runs_here=session.runs_here(workload),
            simulate=simulate,
            quiet=quiet,
        ),
        output=output,
        name=name or (recipe.profile.name if recipe else _name(workload, command, meter[0])),
        trigger=trigger,
        phases=common.settings(phase),
        add=add,
        serial=serial,
        sync_code=sync_code,
        max_alignment=units.parse_positive(max_alignment, "1") if max_alignment else None,
        workload=workload,
        workload_options=options | common.settings(workload_set),
        board_options=common.settings(board_set),
        edge=edge,
        simulate=simulate,
        load=load,
        faults=faults,
        duration_s=units.parse_positive(duration, "s") if duration else None,
        windows=windows,
        target=units.parse_positive(target, "1") if target else None,
        inferences_per_window=inferences_per_window,
        warmup=warmup,
        baseline_s=units.parse_positive(baseline, "s") if baseline else None,
        debounce_s=units.parse(debounce, "s") if debounce else None,
        timeout_s=units.parse_positive(timeout, "s"),
        conditions=common.conditions(ambient, calibrated_ago, decoupling),
        battery=common.battery(cell, every),
        note=note,
        argv=tuple(sys.argv),
    )
    if recipe is not None:
        plan = rigs.complete(plan, recipe)
    if format_ not in text.FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(text.FORMATS)}.")
    with common.progress(quiet=quiet) as progress:
        outcome = session.measure(plan, progress, progress.say)
    emit(text.present(outcome.analysis.result, "json" if json else format_, outcome.folder))
    if outcome.trouble is not None:
        raise outcome.trouble


def _command(workload: str | None) -> str:
    """The workload that a command after -- stands for."""
    kind = (workload or "command").partition(":")[0]
    if kind != "command":
        raise UsageError(
            f"A command after -- and the workload {workload} exclude each other.", "Leave one of them out."
        )
    return workload or "command"


def _name(workload: str | None, command: list[str] | None, meter: str) -> str:
    if command:
        return Path(command[0]).name
    if workload:
        kind, _, target = workload.replace("@", ":", 1).partition(":")
        return Path(target).stem if kind not in ("mlperf-tiny", "uart") and Path(target).stem else kind
    return meter.partition("@")[0]
