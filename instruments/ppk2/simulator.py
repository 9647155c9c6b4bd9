"""The device end of a PPK2's cable. It packs bytes by its own code, so that no mistake is shared with wire.py.

The load begins (t = 0) at each start of streaming, so that a test knows its phase; sample k is the load's true mean
over [k, k + 1) x 10 µs. Current flows in ammeter mode, where the board has its own supply, and in source mode while
the power is switched on; otherwise the board is off and its lines are low.

Its calibration text has a line more than a real one, `Simulator: joulemeter`: whoever records can say so.
"""

from __future__ import annotations

import itertools
import struct

import numpy as np
from numpy.typing import NDArray

from joulemeter.instrument import Options
from joulemeter.synthetic import Draw

RATE_HZ = 100_000
NOISE_CODES = 2.4  # standard deviation of one sample; from 3.2 µA at 870 µA with ten samples averaged (MetaShunt data)

# Shunt (ohms), quadratic (1/A), gain, ADC offset (quarter codes), A/V of supply, A. The size of published units' own.
UNIT = {
    0: (1008.19, 0.0, 1.0, 112.942, 4.8e-08, -1.04e-07),
    1: (102.38, 138.0, 0.9695, 75.4627, 5.96e-07, -1.443e-06),
    2: (10.41, 21.6, 0.9609, 64.602, 5.281e-06, -1.1439e-05),
    3: (0.978, 3.0, 0.9519, 50.4983, 6.2577e-05, -2.54119e-04),
    4: (0.0574, 0.088, 0.9582, 87.2177, 0.002447, -0.007688455),
}
VOLTS_PER_QUARTER_CODE = 0.6 * 3 / 163840
# Up at the first figure; down again below the second, so that a load near the limit does not make it flutter.
SWITCH_UP_A = np.array([50e-6, 500e-6, 5e-3, 50e-3])
SWITCH_DOWN_A = 0.8 * SWITCH_UP_A

ARGUMENTS = {0x06: 0, 0x07: 0, 0x0C: 1, 0x0D: 2, 0x11: 1, 0x15: 0, 0x16: 0, 0x19: 0, 0x20: 0, 0x25: 5}
AMMETER, SOURCE = 1, 2


class Ppk2Simulator:
    def __init__(self, load: Draw, options: Options, *, noise: bool = True) -> None:
        """`options.declared_v` is the board's own supply in ammeter mode, 3.0 V if it is not given."""
        self._load = load
        self._noise = NOISE_CODES if noise else 0.0
        self._board_v = options.declared_v or 3.0
        self._user_gains = [1.0] * len(UNIT)
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._now_s = 0.0
        self._drawn: Draw = load
        self._supplied: bool | None = None
        self._reset()

    def _reset(self) -> None:
        self._mode, self._power, self._millivolts = AMMETER, False, 3000
        self._streaming = False
        self._tell_board()

    def _tell_board(self) -> None:
        """The board has its own supply in ammeter mode, and the meter's in source mode."""
        supplied = self._mode == AMMETER or (self._mode == SOURCE and self._power)
        if supplied != self._supplied:
            self._supplied = supplied
            self._load.powered(supplied, self._now_s)

    def receive(self, data: bytes) -> None:
        """Commands, in whatever pieces they come; bytes that are none are ignored."""
        self._inbox += data
        while self._inbox:
            length = 1 + ARGUMENTS.get(self._inbox[0], 0)
            if len(self._inbox) < length:
                return
            command, *arguments = self._inbox[:length]
            del self._inbox[:length]
            self._obey(command, bytes(arguments))

    def _obey(self, command: int, arguments: bytes) -> None:
        match command:
            case 0x06:
                self._streaming, self._start_s, self._sent, self._range = True, self._now_s, 0, 0
                self._drawn = self._load.from_time(self._now_s)
                self._random = np.random.default_rng(20)
            case 0x07:
                self._streaming = False
            case 0x0C:
                self._power = arguments[0] == 1
                self._tell_board()
            case 0x0D:
                self._millivolts = int.from_bytes(arguments, "big")
            case 0x11:
                self._mode = arguments[0]
                self._tell_board()
            case 0x19:
                self._outbox += self._metadata().encode()
            case 0x20:
                self._reset()
            case 0x25 if arguments[0] < len(UNIT):
                (self._user_gains[arguments[0]],) = struct.unpack("<f", arguments[1:])

    def _metadata(self) -> str:
        columns = list(zip(*UNIT.values(), strict=True))
        named = dict(zip(("R", "GS", "GI", "O", "S", "I"), columns, strict=True)) | {"UG": self._user_gains}
        lines = ["Calibrated: 1"]
        for name in ("R", "GS", "GI", "O"):
            lines += [f"{name}{range_}: {value:.4f}" for range_, value in enumerate(named[name])]
        lines += [f"VDD: {self._millivolts}", "HW: 9173", f"mode: {self._mode}", "Simulator: joulemeter"]
        for name in ("S", "I"):
            lines += [f"{name}{range_}: {value:.9f}" for range_, value in enumerate(named[name])]
        lines += [f"UG{range_}: {value:.2f}" for range_, value in enumerate(named["UG"])]
        return "\n".join([*lines, "IA: 56", "END", ""])

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        answer = bytes(self._outbox)
        self._outbox.clear()
        if not self._streaming:
            return answer
        # A hair more than the product, so that rounding never holds a due sample back.
        due = int((self._now_s - self._start_s) * RATE_HZ + 1e-6) - self._sent
        return answer + self._samples(due) if due > 0 else answer

    def _samples(self, count: int) -> bytes:
        first, self._sent = self._sent, self._sent + count
        current_a, lines = np.zeros(count), np.zeros(count, np.uint8)
        if self._supplied:
            current_a = self._drawn.mean_current_a(first, count, RATE_HZ)
            lines = self._drawn.lines(first, count, RATE_HZ)
        ranges = self._choose_ranges(current_a)
        volts = self._board_v if self._mode == AMMETER else self._millivolts / 1000
        codes = _codes(current_a, ranges, volts) + self._noise * self._random.standard_normal(count)
        words = np.clip(np.rint(codes), 0, 0x3FFF).astype("<u4")
        words += ranges.astype(np.uint32) * 0x4000
        words += np.arange(first, first + count, dtype=np.uint64).astype(np.uint32) % 64 * 0x40000
        words += lines.astype(np.uint32) * 0x1000000
        return words.astype("<u4").tobytes()

    def _choose_ranges(self, current_a: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The range for each sample: at least `needed`, at most `allowed`, else the one before."""
        needed = np.searchsorted(SWITCH_UP_A, current_a, side="left")
        allowed = np.searchsorted(SWITCH_DOWN_A, current_a, side="left")
        changes = np.flatnonzero((np.diff(needed) != 0) | (np.diff(allowed) != 0)) + 1
        borders = [0, *changes.tolist(), len(current_a)]
        ranges = np.empty(len(current_a), np.uint8)
        for start, stop in itertools.pairwise(borders):
            self._range = int(min(max(self._range, needed[start]), allowed[start]))
            ranges[start:stop] = self._range
        return ranges


def _codes(current_a: NDArray[np.float64], ranges: NDArray[np.uint8], volts: float) -> NDArray[np.float64]:
    """Fractional ADC codes: the unit's quadratic solved for its shunt current."""
    shunt, bend, gain, zero, per_volt, fixed = np.array([UNIT[range_] for range_ in UNIT]).T[:, ranges]
    linear = current_a - fixed - per_volt * volts
    # The form of the root that also holds for a bend of zero.
    through_a = 2 * linear / (gain + np.sqrt(gain**2 + 4 * bend * linear))
    codes: NDArray[np.float64] = (through_a * shunt / VOLTS_PER_QUARTER_CODE + zero) / 4
    return codes
