"""The whole chain without hardware: a board from a profile, a simulated meter, the real driver."""

from __future__ import annotations

from pathlib import Path

from joulemeter import profile, session, store
from joulemeter.instrument import Options
from joulemeter.physics.analyze import Request
from joulemeter.plan import Meter, Plan
from joulemeter.report.build import write as write_report
from joulemeter.session import Outcome, Progress
from joulemeter.simulated import load_text, rig_load
from joulemeter.synthetic import Load

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
        battery=_battery(rig.profile),
        truth=_truth(load, supply_v),
        note=f"simulated load: {load.name}",
        argv=argv,
        profiles={loaded.path: loaded.sha256 for loaded in (rig, device)},
    )
    outcome = session.measure(plan, progress)
    progress("drawing the report")
    write_report(store.open_run(outcome.folder), Request(), outcome.folder / "report.html", outcome.analysis)
    return outcome


def _battery(rig: profile.Rig) -> dict[str, object] | None:
    """What is asked about the rig's cell."""
    return {"cell": rig.cell, "every_s": float(rig.every_s)} if rig.cell and rig.every_s else None


def _truth(load: Load, supply_v: float | None) -> dict[str, float] | None:
    charge_c = load.pulse_charge_c(0)
    if charge_c is None or supply_v is None:
        return None
    return {"energy_per_inference_j": charge_c * supply_v, "latency_s": load.pulse_duration_s(0)}


def _inference(rig: profile.Rig) -> dict[str, object] | None:
    """What the board is said to run, in the keys of result.json's `workload`."""
    asked = rig.inference
    if asked is None:
        return None
    return {"runtime": asked.runtime, "model": asked.model, "precision": asked.precision, "batch": asked.batch}
