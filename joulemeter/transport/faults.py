"""Faults on a wire, for any simulated device: what cables, hubs and overloaded hosts do to bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulemeter import units
from joulemeter.errors import UsageError
from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError

KINDS = {
    "drop": "lose N bytes (a multiple of the word size loses samples, anything else also shifts the words)",
    "insert": "N bytes of nonsense come in between",
    "garble": "N bytes arrive with every bit flipped",
    "noise": "from then on every byte is nonsense",
    "stall": "nothing arrives from then on",
    "unplug": "the device disappears",
}
_COUNTED = ("drop", "insert", "garble")
_SYNTAX = re.compile(r"(\w+)@([^:]+)(?::(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: str
    at_s: float
    amount: int = 0


def parse_faults(text: str) -> tuple[Fault, ...]:
    """`drop@1s:128,unplug@2.5s` -> faults in order of time. Raises UsageError."""
    faults = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _SYNTAX.fullmatch(part)
        if match is None or match[1] not in KINDS or (match[1] in _COUNTED) != (match[3] is not None):
            raise UsageError(
                f"{part!r} is not a fault.",
                f"Write KIND@TIME or KIND@TIME:BYTES; kinds with bytes: {', '.join(_COUNTED)}; "
                f"without: {', '.join(kind for kind in KINDS if kind not in _COUNTED)}.",
            )
        faults.append(Fault(kind=match[1], at_s=units.parse(match[2], "s"), amount=int(match[3] or 0)))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


class FaultyDevice:
    """A device behind a bad cable. Fault times count from the first byte that the host asks for."""

    def __init__(self, device: Device, faults: tuple[Fault, ...]) -> None:
        self._device = device
        self._waiting = list(faults)
        self._to_drop = 0
        self._stalled = self._noisy = self._gone = False

    def receive(self, data: bytes) -> None:
        if self._gone:
            raise UnpluggedError
        self._device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        if self._gone:
            raise UnpluggedError
        data = b""
        while self._waiting and self._waiting[0].at_s <= now_s:
            fault = self._waiting.pop(0)
            data += self._pass(self._device.transmit(fault.at_s))
            data += self._apply(fault)
            if self._gone:
                return data
        return data + self._pass(self._device.transmit(now_s))

    def _apply(self, fault: Fault) -> bytes:
        """Turn the fault on; the bytes that it adds."""
        match fault.kind:
            case "drop":
                self._to_drop += fault.amount
            case "insert":
                return bytes((37 * k + 11) & 0xFF for k in range(fault.amount))
            case "garble":
                step_s = 0.001
                taken = b""
                while len(taken) < fault.amount and step_s < 1:
                    taken += self._device.transmit(fault.at_s + step_s)
                    step_s += 0.001
                return bytes(byte ^ 0xFF for byte in taken[: fault.amount]) + taken[fault.amount :]
            case "noise":
                self._noisy = True
            case "stall":
                self._stalled = True
            case "unplug":
                self._gone = True
        return b""

    def _pass(self, data: bytes) -> bytes:
        if self._stalled:
            return b""
        dropped = min(self._to_drop, len(data))
        self._to_drop -= dropped
        data = data[dropped:]
        return bytes((byte * 167 + 13 * k) & 0xFF for k, byte in enumerate(data)) if self._noisy else data
