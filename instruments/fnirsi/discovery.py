"""Which of these meters are on USB."""

from __future__ import annotations

from dataclasses import dataclass

from joulemeter.errors import MissingExtraError
from joulemeter.instrument import Found
from joulemeter.transport import hid

from . import wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A meter that is there: what the user is told of it, what opens it, and the name of its model."""

    found: Found
    info: hid.HidInfo
    model: str


def units(key: str) -> list[Unit]:
    """Ordered by path; none where hidapi is not installed, for that is told when one is opened."""
    models = {(model.usb.vendor, model.usb.product): name for name, model in wire.MODELS.items()}
    try:
        there = hid.listed(list(models))
    except (MissingExtraError, OSError):
        return []
    return [_unit(key, info, models[info.vendor, info.product]) for info in there]


def _unit(key: str, info: hid.HidInfo, model: str) -> Unit:
    problem, remedy = hid.barred(info) or (None, None)
    found = Found(
        key=key,
        address=info.path,
        description=f"{model} ({info.name})" if info.name else model,
        serial=info.serial,
        problem=problem,
        remedy=remedy,
    )
    return Unit(found=found, info=info, model=model)
