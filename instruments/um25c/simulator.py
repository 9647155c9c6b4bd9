"""The device end of a Bluetooth serial port. It packs bytes by its own code, so that no mistake is shared with wire.py.

The meter averages for 0.25 s and shows that until the next average is complete; the load begins (t = 0) when it is
plugged in, and goes on. Charge and energy are counted in the first group and start at what was left there before; the
second holds what an earlier use left.
"""

from __future__ import annotations

from joulemeter.synthetic import Draw

RATE_HZ = 4.0
# Model number, steps of a volt, steps of an ampere.
SHOWN = {"UM24C": (0x0963, 100, 1000), "UM25C": (0x09C9, 1000, 10_000), "UM34C": (0x0D4C, 100, 1000)}
# By which bytes the last one of a UM34C's answer is made.
SUMMED = (
    1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109, 111, 113,
    119, 121, 127,
)  # fmt: skip
BEFORE_MWH, OTHER_MWH = 1234.0, 567.0


class Um25cSimulator:
    def __init__(self, load: Draw, model: str, volts: float) -> None:
        self._load = load
        self._model = model
        self._volts = volts
        self._now_s = 0.0
        self._averages = 0
        self._charge_c = 0.0
        self._current_a = float(load.mean_current_a(0, 1, RATE_HZ)[0])
        self._outbox = b""
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        """0xF0 asks for a reading; other commands change the display and are not answered."""
        for byte in data:
            if byte == 0xF0:
                self._outbox += self._answer()

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        due = int(self._now_s * RATE_HZ + 1e-6) - self._averages
        if due > 0:
            means = self._load.mean_current_a(self._averages, due, RATE_HZ)
            self._averages += due
            self._current_a = float(means[-1])
            self._charge_c += float(means.sum()) / RATE_HZ
        sent, self._outbox = self._outbox, b""
        return sent

    def _answer(self) -> bytes:
        number, per_volt, per_ampere = SHOWN[self._model]
        answer = bytearray(130)

        def put(at: int, size: int, value: float) -> None:
            answer[at : at + size] = round(value).to_bytes(size, "big")

        put(0, 2, number)
        put(2, 2, self._volts * per_volt)
        put(4, 2, self._current_a * per_ampere)
        put(6, 4, self._volts * self._current_a * 1e3)
        put(10, 2, 25)
        put(12, 2, 77)
        milliwatthours = BEFORE_MWH + self._charge_c * self._volts / 3.6
        put(16, 4, milliwatthours / self._volts)
        put(20, 4, int(milliwatthours))
        put(24, 4, OTHER_MWH / self._volts)
        put(28, 4, OTHER_MWH)
        put(112, 4, self._now_s)
        put(122, 4, self._volts / max(self._current_a, 1e-3) * 10)
        # A screen that no meter has: whoever records can say that this one is simulated.
        put(126, 2, int.from_bytes(b"JM", "big"))
        answer[128:] = b"\xff\xf1"
        if self._model == "UM34C":
            answer[129] = 0
            for at in SUMMED:
                answer[129] ^= answer[at]
        return bytes(answer)
