"""JouleMeter: energy per inference, mean power and battery life of machine-learning inference.

import joulemeter as jm
run = jm.load("results/2026-11-20T20-41-26Z-kws")
run.result().energy_per_inference_j.median
with jm.open("ppk2", supply="3.0V") as meter:
    run = meter.record("5s")
with jm.measure("ppk2", supply="3.0V", trigger="d0") as m:
    for _ in range(100):
        with m.inference():
            interpreter.invoke()

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from joulemeter.api import Meter, Run, load, open  # noqa: A004 - jm.open reads like the thing it does
    from joulemeter.errors import JouleMeterError
    from joulemeter.measurement import Measurement, measure
    from joulemeter.result import Result

__all__ = ["JouleMeterError", "Measurement", "Meter", "Result", "Run", "load", "measure", "open"]

_HOMES = {
    "JouleMeterError": "errors",
    "Measurement": "measurement",
    "Meter": "api",
    "Result": "result",
    "Run": "api",
    "load": "api",
    "measure": "measurement",
    "open": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'joulemeter' has no attribute {name!r}")
    return getattr(import_module(f"joulemeter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
