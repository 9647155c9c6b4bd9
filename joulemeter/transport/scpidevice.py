"""The device end of a SCPI wire: what every simulated bench instrument stands on, and faults at any byte of it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError
from joulemeter.transport.faults import Fault

# What one call of transmit gives at most.
PIECE_BYTES = 1 << 17
QUEUE_ENTRIES = 16
# Semicolons separate commands, except in quotes, as in VBS 'app.X = 1;'.
_COMMANDS = re.compile(r"""(?:[^;"']|"[^"]*"|'[^']*'|["'])+""")
_OPC = 0x01
# Bits of the event register by the hundreds of the error code; device-specific errors have the other bit.
_EVENTS = {1: 0x20, 2: 0x10, 4: 0x04}
_DEVICE_ERROR = 0x08
_MAV, _ESB = 0x10, 0x20


@runtime_checkable
class MessageDevice(Device, Protocol):
    """A device whose replies are messages, for wires that mark their ends. One transmit gives bytes of one message."""

    @property
    def ended(self) -> bool:
        """Whether the last byte transmitted was the last of its message."""
        ...

    def clear(self) -> None:
        """Device clear: unread replies and unfinished commands are forgotten."""
        ...

    def status_byte(self) -> int:
        """IEEE 488.2, 11.2."""
        ...


class Refused(Exception):  # noqa: N818 - the instrument's word, not a failure of this program
    """A command that the instrument refuses, with the code and text of its error queue."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class _Reply:
    data: memoryview
    due_s: float
    until_idle: bool = False


class ScpiDevice:
    """Takes messages apart, answers the common commands, keeps the error queue and the replies.

    A personality gives `identity` and overrides `answer` and `advance`; the answers of one message are joined by
    semicolons. `latency_s` is how long a reply takes.
    """

    identity = "JOULEMETER,SIMULATED,0,0"
    reply_end = b"\n"
    latency_s = 0.0

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heard = bytearray()
        self._replies: deque[_Reply] = deque()
        self._ended = True
        self._complaints: deque[Refused] = deque()
        self._events = 0
        self._completing = self._holding = False

    def answer(self, command: str) -> bytes | None:
        """The reply to one command or query, None where there is none. Raises Refused."""
        raise Refused(-113, "Undefined header")

    def advance(self, now_s: float) -> None:
        """What the instrument does as time goes on."""

    def busy(self) -> bool:
        """Whether an operation is going on, which *OPC waits for."""
        return False

    def say(self, data: bytes, after_s: float = 0.0) -> None:
        """A reply, due at some time from now; replies never overtake each other."""
        due_s = self.now_s + self.latency_s + after_s
        self._replies.append(_Reply(data=memoryview(data), due_s=due_s, until_idle=self._holding))
        self._holding = False

    def receive(self, data: bytes) -> None:
        if not data:
            # The host has gone; nobody will read what it asked for.
            self.clear()
            return
        self._heard += data
        while (end := self._heard.find(b"\n")) >= 0:
            message = bytes(self._heard[:end])
            del self._heard[: end + 1]
            self._message(message.decode("latin-1").strip())

    def transmit(self, now_s: float) -> bytes:
        self.now_s = now_s
        self.advance(now_s)
        if not self._ready():
            return b""
        reply = self._replies[0]
        piece = bytes(reply.data[:PIECE_BYTES])
        reply.data = reply.data[PIECE_BYTES:]
        self._ended = not reply.data
        if self._ended:
            self._replies.popleft()
        return piece

    @property
    def ended(self) -> bool:
        return self._ended

    def clear(self) -> None:
        self._heard.clear()
        self._replies.clear()
        self._ended = True

    def status_byte(self) -> int:
        return _MAV * self._ready() | _ESB * bool(self._events)

    def _ready(self) -> bool:
        """Whether the first reply may be sent."""
        if not self._replies or self._replies[0].due_s > self.now_s:
            return False
        return not (self._replies[0].until_idle and self.busy())

    def complain(self, code: int, text: str) -> None:
        """An entry of the error queue, and its bit of the event register (SCPI-99, volume 2, 21.8)."""
        self._events |= _EVENTS.get(-code // 100, _DEVICE_ERROR)
        if len(self._complaints) == QUEUE_ENTRIES:
            self._complaints[-1] = Refused(-350, "Queue overflow")
        else:
            self._complaints.append(Refused(code, text))

    def _message(self, text: str) -> None:
        answers = []
        for command in _COMMANDS.findall(text):
            try:
                given = self._common(command.strip())
            except Refused as refused:
                self.complain(refused.code, refused.text)
                break
            if given is not None:
                answers.append(given)
        if answers:
            self.say(b";".join(answers) + self.reply_end)

    def _common(self, command: str) -> bytes | None:
        """IEEE 488.2, chapter 10, and the error queue of SCPI; the rest is the personality's."""
        match command.upper().removeprefix(":"):
            case "":
                return None
            case "*IDN?":
                return self.identity.encode("latin-1")
            case "*CLS":
                self._complaints.clear()
                self._events = 0
                return None
            case "*ESR?":
                given = self._events | _OPC * self._completed()
                self._events = 0
                return b"%d" % given
            case "*OPC":
                self._completing = True
                return None
            case "*OPC?":
                self._holding = True
                return b"1"
            case text if text.startswith(("*ESE ", "*SRE ")):
                return None
            case "*STB?":
                return b"%d" % self.status_byte()
            case "SYST:ERR?" | "SYSTEM:ERROR?" | "SYST:ERR:NEXT?" | "SYSTEM:ERROR:NEXT?":
                if not self._complaints:
                    return b'0,"No error"'
                first = self._complaints.popleft()
                return f'{first.code},"{first.text}"'.encode("latin-1")
            case _:
                return self.answer(command)

    def _completed(self) -> bool:
        """Whether *OPC was asked for and has come true; that is told once."""
        if not self._completing or self.busy():
            return False
        self._completing = False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteFault:
    """What goes wrong once `at` bytes were sent.

    `stall` and `unplug` for good; `drop`, `insert` and `garble` for `amount` bytes; `late` for `amount` milliseconds.
    """

    kind: str
    at: int
    amount: int = 0


class BentDevice:
    """A device that misbehaves at given bytes of what it sends, or at given times, both counted since it was made."""

    def __init__(self, device: MessageDevice, faults: Sequence[ByteFault] = (), timed: Sequence[Fault] = ()) -> None:
        self._device = device
        self._faults = deque(sorted(faults, key=lambda fault: fault.at))
        self._timed = deque(timed)
        self._held = b""
        self._sent = self._to_drop = 0
        self._now_s = self._until_s = 0.0
        self._stalled = self._gone = self._noisy = False

    @property
    def ended(self) -> bool:
        return self._device.ended and not self._held and not self._stalled

    def clear(self) -> None:
        self._held, self._to_drop = b"", 0
        self._device.clear()

    def status_byte(self) -> int:
        return self._device.status_byte()

    def receive(self, data: bytes) -> None:
        if self._gone:
            raise UnpluggedError
        if not data:
            self._held = b""
        self._device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        self._now_s = now_s
        if self._gone:
            raise UnpluggedError
        if now_s < self._until_s:
            return b""
        while self._timed and self._timed[0].at_s <= now_s:
            due = self._timed.popleft()
            match due.kind:
                # These need no byte to happen at.
                case "unplug":
                    self._gone = True
                    raise UnpluggedError
                case "stall":
                    self._stalled = True
                case "noise":
                    self._noisy = True
                case _:
                    self._faults.appendleft(ByteFault(kind=due.kind, at=self._sent, amount=due.amount))
        data, self._held = self._held or self._device.transmit(now_s), b""
        dropped = min(self._to_drop, len(data))
        self._to_drop -= dropped
        data = data[dropped:]
        if self._stalled or not data:
            return b""
        if self._faults and self._faults[0].at < self._sent + len(data):
            data = self._bend(data)
        if self._noisy:
            data = bytes((byte * 167 + 13 * k) & 0xFF for k, byte in enumerate(data))
        self._sent += len(data)
        return data

    def _bend(self, data: bytes) -> bytes:
        """What is sent before the next fault, which is then in force."""
        fault = self._faults.popleft()
        before, after = data[: fault.at - self._sent], data[fault.at - self._sent :]
        match fault.kind:
            case "stall":
                self._stalled = True
            case "unplug":
                self._gone = True
            case "drop":
                self._to_drop, self._held = fault.amount, after
            case "insert":
                self._held = bytes((37 * k + 11) & 0xFF for k in range(fault.amount)) + after
            case "garble":
                self._held = bytes(byte ^ 0xFF for byte in after[: fault.amount]) + after[fault.amount :]
            case "late":
                self._until_s = self._now_s + fault.amount * 1e-3
                self._held = after
            case _:
                raise ValueError(fault.kind)
        return before
