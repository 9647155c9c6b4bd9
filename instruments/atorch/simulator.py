"""The device end of a Bluetooth serial port. It packs bytes by its own code, so that no mistake is shared with wire.py.

A report is sent when it is switched on and then each second, with the mean of the second before it; the load begins
(t = 0) with the first. Commands are refused.
"""

from __future__ import annotations

from joulemeter.synthetic import Draw

# Kind of meter, steps of a volt, steps of an ampere, at which byte the sum of the checksum begins.
SHOWN = {"UD18": (3, 100, 100, 2), "J7-C": (3, 100, 100, 3), "AT24": (2, 10, 1000, 2)}
REFUSED = bytes.fromhex("ff55020103000042")
# How long it had run, and what it had counted.
BEFORE_S, BEFORE_MAH, BEFORE_MWH = 3600 * 71 + 60 * 47 + 36, 3437, 23860
CELSIUS = 26
ALWAYS_LIT = 60


class AtorchSimulator:
    def __init__(self, load: Draw, volts: float, model: str) -> None:
        self._load = load
        self._volts = volts
        self._kind, self._per_volt, self._per_ampere, self._sum_from = SHOWN[model]
        self._sent = 0
        self._charge_c = 0.0
        self._outbox = b""
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        self._outbox += REFUSED * data.count(b"\xff\x55\x11")

    def transmit(self, now_s: float) -> bytes:
        while self._sent <= now_s + 1e-6:
            # The first one has no second before it.
            second = max(self._sent - 1, 0)
            current_a = float(self._load.mean_current_a(second, 1, 1.0)[0])
            self._charge_c += current_a if self._sent else 0.0
            self._outbox += self._report(current_a)
            self._sent += 1
        sent, self._outbox = self._outbox, b""
        return sent

    def _report(self, current_a: float) -> bytes:
        report = bytearray(36)

        def put(at: int, size: int, value: float) -> None:
            report[at : at + size] = round(value).to_bytes(size, "big")

        report[:4] = 0xFF, 0x55, 0x01, self._kind
        put(4, 3, self._volts * self._per_volt)
        put(7, 3, current_a * self._per_ampere)
        milliamperehours = BEFORE_MAH + self._charge_c / 3.6
        milliwatthours = BEFORE_MWH + self._charge_c * self._volts / 3.6
        minutes, seconds = divmod(BEFORE_S + self._sent, 60)
        run = [*(minutes // 60).to_bytes(2, "big"), minutes % 60, seconds, ALWAYS_LIT]
        if self._kind == 3:
            put(10, 3, int(milliamperehours))
            put(13, 4, int(milliwatthours / 10))
            put(17, 2, 7)
            put(19, 2, 6)
            put(21, 2, CELSIUS)
            report[23:28] = run
        else:
            put(10, 3, int(milliamperehours / 10))
            put(24, 2, CELSIUS)
            report[26:31] = run
        # No meter has this at the end: whoever records can say that this one is simulated.
        report[31:35] = b"JMsi"
        total = 0
        for byte in report[self._sum_from : 35]:
            total = (total + byte) % 256
        report[35] = total ^ 0x44
        return bytes(report)
