"""The LPM01A's bytes: commands, replies, and both formats of its stream. Pure functions and tables.

Facts from ST's UM2269 rev 6 (sections 4.2 to 4.5), the `help` text of firmware 1.0.6 as mlcommons/tiny quotes it, and
what clients in the field expect (mlcommons/tiny, zephyr, lazicdanilo/LPM01A-lib, Ahinterd/LPM01A-lib).

ASCII, one line per sample, 6409-07 = 6409e-7 (amperes, or joules with `output energy`):

    6409-07\\r\\n
    \\r\\nTimeStamp: 003s 000ms, buff 00%\\r\\n       at each 1000th sample; a NUL may follow
    event 07 ris\\r\\n                               an edge of D7; the number has two digits

Binary, two bytes per sample, big-endian: 52A0 = 0x2A0 x 16^-5. A first nibble of F begins something else:

    F0 F1 text FF FF     error                       F0 F5 FF FF          overcurrent
    F0 F2 text FF FF     information                 F0 F6 FF FF          target powered down
    F0 F3 4B 1B FF FF    milliseconds, buffer in %   F0 F7|F8 2B FF FF    voltage in mV | temperature in °C
    F0 F4 FF FF          end of the acquisition      F0 F9 1B FF FF       target power
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

ASCII, BINARY = "lpm01a-ascii/1", "lpm01a-binary/1"
FORMATS = {"ascii": ASCII, "binary": BINARY}
FORMAT_WORDS = {"ascii": "ascii_dec", "binary": "bin_hexa"}
SAMPLE_BYTES = {ASCII: 9, BINARY: 2}

BAUD = 3_686_400
SUPPLY_MIN_V, SUPPLY_MAX_V = 1.8, 3.3
# Without end: more than this only for a second or less (UM2269, table 2).
MAX_RATE_HZ = {"ascii": 5e3, "binary": 100e3}
MAX_ENERGY_RATE_HZ = 10e3
STAMP_SAMPLES = 1000
EVENT_MODULO = 100
# `error pwr off` comes from anything older, and D7's events are missing.
FIRMWARE = (1, 0, 6)

RATES_HZ = {
    f"{step}{unit}": step * 10.0**power for power, unit in ((0, ""), (3, "k")) for step in (1, 2, 5, 10, 20, 50)
}
RATES_HZ |= {"100": 100.0, "200": 200.0, "500": 500.0, "100k": 100e3}
RATES_HZ = dict(sorted(RATES_HZ.items(), key=lambda row: row[1]))

# -- commands and replies ---------------------------------------------------------------------------------------------

PROMPT = "PowerShield > "
COMPLETED = b"Acquisition completed"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_NUMBER = re.compile(r"(\d+)(?:([+-]\d+)|([um]?))$")


def command(text: str) -> bytes:
    return text.encode("ascii") + b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`text` is what follows the echo of the command, or why it was refused; `end` where the line ends.

    `unread`: refused without an echo, so that something else may have been in its way.
    """

    ok: bool
    text: str
    end: int
    unread: bool = False


def reply(heard: bytes, text: str) -> Reply | None:
    """The answer to the command `text` in what was heard, None if it is not there (yet); other lines are passed over.

    UM2269 says `err`, firmware 1.0.6 says `error`; its reason stands in the line after. What it could not read, it
    refuses without an echo.
    """
    echo = re.escape(text.encode("ascii"))
    if match := re.search(rb"ack " + echo + rb"[ :]*([^\r\n]*)\r?\n", heard):
        return Reply(ok=True, text=match[1].decode("latin-1").strip(), end=match.end())
    if match := re.search(rb"err(?:or)?:? *" + echo + rb"[^\r\n]*\r?\n(?:\s*Error detail: *([^\r\n]*)\r?\n)?", heard):
        return Reply(ok=False, text=(match[1] or b"").decode("latin-1").strip(), end=match.end())
    if match := re.search(rb"err(?:or)?: *([^\r\n]*unknown[^\r\n]*)\r?\n", heard):
        return Reply(ok=False, text=match[1].decode("latin-1").strip(), end=match.end(), unread=True)
    return None


def version(text: str) -> tuple[int, int, int] | None:
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def number(text: str) -> float | None:
    """A number as the shell writes it: 3292-03, 3300m, 3; None for anything else."""
    match = _NUMBER.match(text.strip())
    if match is None:
        return None
    exponent = int(match[2]) if match[2] else {"m": -3, "u": -6}.get(match[3], 0)
    return float(f"{match[1]}e{exponent}")


# -- the ASCII stream -------------------------------------------------------------------------------------------------

RUN = re.compile(rb"(?:\d{4}[+-]\d\d\r\n)+")
REMAINS = re.compile(rb"[0-9+-]+")
STAMP = re.compile(rb"TimeStamp:[ <>]*(\d+)s (\d+)ms, buff *(\d+)%")
EVENT = re.compile(rb"event (\d+) (?:ris|fal)")
NOTICE = re.compile(rb"(?:PowerShield >|error\b|err\b|pwr (?:on|off)$).*", re.DOTALL)
STAMP_LINE, EVENT_LINE = 35, 14
# Letters that tell what a damaged line was: no sample has any, and the two lines share none of these.
EVENT_LETTERS, STAMP_LETTERS = frozenset(b"vnr"), frozenset(b"TSampbuf%:,")


def decimals(data: bytes, start: int, stop: int) -> Float:
    """Values of whole sample lines in data[start:stop], (n,); each is the double nearest to what is written."""
    digits = np.frombuffer(data, np.uint8, stop - start, start).reshape(-1, SAMPLE_BYTES[ASCII]).astype(np.int64) - 48
    mantissa = (digits[:, :4] @ np.array([1000, 100, 10, 1])).astype(np.float64)
    exponent = digits[:, 5] * 10 + digits[:, 6]
    power = 10.0**exponent
    values: Float = np.where(digits[:, 4] == ord("-") - 48, mantissa / power, mantissa * power)
    return values


def holds_event(damaged: bytes) -> bool:
    return bool(set(damaged) & EVENT_LETTERS)


def samples_in(damaged: bytes) -> int:
    """How many samples the bytes of a damaged line are likely to stand for."""
    letters, room = set(damaged), len(damaged)
    if holds_event(damaged):
        room -= EVENT_LINE
    if letters & STAMP_LETTERS:
        room -= STAMP_LINE
    return max(0, -(-room // SAMPLE_BYTES[ASCII]))


# -- the binary stream ------------------------------------------------------------------------------------------------

TAG = 0xF0
RECORD_END = b"\xff\xff"
MAX_TEXT_BYTES = 260
ERROR, INFORMATION, TIME, END = 0xF1, 0xF2, 0xF3, 0xF4
RECORD_BYTES = {TIME: 9, END: 4, 0xF5: 4, 0xF6: 4, 0xF7: 6, 0xF8: 6, 0xF9: 5}
TEXT = re.compile(rb"\xf0[\xf1\xf2]([\t\r\n -~\0]{0,256})\xff\xff")
TIME_RECORD = re.compile(rb"\xf0\xf3([\0-\xff]{4})([\0-\x64])\xff\xff")
FIRST_TAG = 0xF000
TIME_BITS = 0x7FFFFFFF


def words(data: bytes, start: int, most: int) -> NDArray[np.uint16]:
    """Up to `most` big-endian words, (n,)."""
    return np.frombuffer(data, ">u2", min((len(data) - start) // 2, most), min(start, len(data)))


def hexadecimals(samples: NDArray[np.uint16]) -> Float:
    """Values of samples, (n,), exact."""
    values: Float = np.ldexp((samples & 0x0FFF).astype(np.float64), -4 * (samples >> 12).astype(np.int32))
    return values
