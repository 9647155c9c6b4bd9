"""`auto`: the best meter that is present, by an order that anybody can foresee.

1. It can be opened, and it sees what the trigger asks for. An oscilloscope has to be named, with its shunt.
2. It measures the device from outside. Sensors of this host come after, and only where this host runs the model: they
   would measure the wrong device otherwise.
3. It has trigger lines of its own, so that windows lie exactly in its samples.
4. It measures power itself, so that no voltage has to be stated.
5. It samples faster; then the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from joulemeter import registry
from joulemeter.capture import Quantity
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Found, Info, InstrumentModule
from joulemeter.trigger import parse_trigger

AUTO = "auto"


def best(
    trigger: str | None, *, runs_here: bool, modules: Mapping[str, InstrumentModule] | None = None
) -> tuple[Found, str]:
    """The meter to take and why, for people. `runs_here`: the model runs on this host.

    Raises NotFoundError where there is none, naming those that were passed over, and UsageError where two of one kind
    are connected.
    """
    modules = dict(registry.instruments()) if modules is None else modules
    found = [unit for module in modules.values() for unit in module.discover()]
    passed: list[str] = []
    fitting: list[Found] = []
    for unit in found:
        info = modules[unit.key].INFO
        why = unit.problem or _unfit(info, trigger, runs_here)
        if why is None:
            fitting.append(unit)
        else:
            passed.append(f"{unit.key}@{unit.address}: {why}")
    if not fitting:
        raise NotFoundError(
            "No meter that fits is connected."
            + (f" Passed over: {' '.join(passed)}" if passed else " None was found at all."),
            "`joulemeter scan` tells more; name one with --meter KEY@ADDRESS, or --meter none for time alone.",
        )
    first = min(fitting, key=lambda unit: rank(modules[unit.key].INFO))
    same = [unit for unit in fitting if unit.key == first.key]
    if len(same) > 1:
        listed = ", ".join(f"{unit.key}@{unit.address} ({unit.description})" for unit in same)
        raise UsageError(f"auto would take a {first.key}, and there are {len(same)}.", f"Name one: {listed}.")
    others = sorted({unit.key for unit in fitting} - {first.key})
    return first, f"{first.description}{f', before {_and(others)}' if others else ''}"


def rank(info: Info) -> tuple[object, ...]:
    """Lower is better; see above."""
    lines = [channel for channel in info.channels if channel.lines]
    return (
        info.onboard,
        not lines,
        any(channel.falls_only for channel in lines),
        not info.sees_voltage,
        -max(info.rates_hz),
        info.key,
    )


def _unfit(info: Info, trigger: str | None, runs_here: bool) -> str | None:
    if info.onboard and not runs_here:
        return "it measures this host, and this host does not run the model."
    if any(channel.quantity is Quantity.SIGNAL for channel in info.channels):
        return "only you know what its inputs are connected to."
    if trigger is not None:
        asked = parse_trigger(trigger)
        if asked.digital and not any(asked.source in channel.lines for channel in info.channels):
            return f"it has no line {asked.source}."
    return None


def _and(keys: Iterable[str]) -> str:
    return ", ".join(keys)
