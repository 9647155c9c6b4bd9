"""The whole chain without hardware: a board from a profile, a simulated meter, the real driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from joulemeter import profile, session, store
from joulemeter.instrument import Options
from joulemeter.physics.analyze import Request
from joulemeter.physics.battery import simple_life
from joulemeter.plan import Meter, Plan
from joulemeter.report.build import write as write_report
from joulemeter.session import Outcome, Progress
from joulemeter.simulated import load_text, rig_load

WINDOWS = 20


def run(output: Path, progress: Progress, argv: tuple[str, ...] = ()) -> Outcome:
    """Measure the rig `demo` on its simulators; the run directory then also holds report.html."""
    rig = profile.find(profile.Rig, "demo")
    device = profile.find(profile.Device, rig.profile.device)
    load = rig_load(rig.profile)
    supply_v = rig.profile.supply_v
    plan = Plan(
        meters=(Meter(key=rig.profile.meter, address="", options=Options(supply_v=supply_v)),),
        output=output,
        name="demo",
        trigger=rig.profile.trigger,
        simulate=True,
        load=load_text(load),
        windows=WINDOWS,
        inferences_per_window=1,
        device={"name": device.profile.name, "maker": device.profile.maker, "class": device.profile.device_class},
        board_runs=_inference(rig.profile),
        note=f"simulated load: {load.name}",
        argv=argv,
        profiles={loaded.path: loaded.sha256 for loaded in (rig, device)},
    )
    outcome = session.measure(plan, progress)
    result = outcome.analysis.result
    charge_c = load.pulse_charge_c(0)
    if charge_c is not None and supply_v is not None:
        truth = {"energy_per_inference_j": charge_c * supply_v, "latency_s": load.pulse_duration_s(0)}
        result = replace(result, truth=truth)
    if rig.profile.cell and rig.profile.every_s:
        cell = profile.find(profile.Cell, rig.profile.cell).profile
        battery, caveats = simple_life(
            result,
            cell=cell.name,
            capacity_c=cell.capacity.charge_c,
            pulse_limit_a=cell.limits.pulse_a if cell.limits else None,
            every_s=rig.profile.every_s,
        )
        result = replace(result, battery=battery, caveats=(*result.caveats, *caveats))
    analysis = replace(outcome.analysis, result=result)
    store.write_result(outcome.folder, result, analysis.rows)
    progress("drawing the report")
    write_report(store.open_run(outcome.folder), Request(), outcome.folder / "report.html", analysis)
    return replace(outcome, analysis=analysis)


def _inference(rig: profile.Rig) -> dict[str, object] | None:
    """What the board is said to run, in the keys of result.json's `workload`."""
    asked = rig.inference
    if asked is None:
        return None
    return {"runtime": asked.runtime, "model": asked.model, "precision": asked.precision, "batch": asked.batch}
