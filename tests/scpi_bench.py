"""A small bench instrument for tests of the wires, and its blocks."""

from __future__ import annotations

import numpy as np

from joulemeter.transport.scpidevice import Refused, ScpiDevice

IDENTITY = "RIGOL TECHNOLOGIES,DS1104Z,DS1ZA000000001,00.04.04.SP3"


def codes(count: int) -> bytes:
    """Bytes of which every eighth is a line feed, the last one among them; `#` and 0xFF are there too."""
    values = np.arange(count, dtype=np.uint8) * np.uint8(37)
    values[7::8] = 10
    values[-1] = 10
    return values.tobytes()


def definite(payload: bytes) -> bytes:
    """IEEE 488.2, 8.7.9, with nine digits."""
    return b"#9" + b"%09d" % len(payload) + payload


class Bench(ScpiDevice):
    """`BLOCK? n` gives n bytes of `codes`, `SAY? hex` those very bytes; `RUN s` is busy for s seconds."""

    identity = IDENTITY

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.level = "0"
        self.busy_until_s = 0.0

    def busy(self) -> bool:
        return self.now_s < self.busy_until_s

    def answer(self, command: str) -> bytes | None:
        self.asked.append(command)
        name, _, value = command.lstrip(":").partition(" ")
        match name:
            case "BLOCK?":
                return definite(codes(int(value)))
            case "SAY?":
                return bytes.fromhex(value)
            case "SILENT?":
                return None
            case "LEV":
                if not value.isdigit():
                    raise Refused(-224, "Illegal parameter value")
                self.level = value
                return None
            case "LEV?":
                return self.level.encode()
            case "RUN":
                self.busy_until_s = self.now_s + float(value)
                return None
            case "STAT?":
                return b"RUN" if self.busy() else b"STOP"
        return super().answer(command)


class Terse(Bench):
    """Ends its replies with the last byte, as on wires that mark the end; on a raw socket nobody would know."""

    reply_end = b""


class Doubly(Bench):
    """Two line feeds after each reply, as Siglent and some LeCroy do."""

    reply_end = b"\n\n"
