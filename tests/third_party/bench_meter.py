"""A meter that somebody else supports: it is asked with "?" and answers "volts amperes", checked by their sum."""

from joulemeter.capture import Accuracy, Channel, Header, Kind, Limit, Quantity
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Info, LinkDriver, Options, Verified
from joulemeter.polled import PolledDecoder, Poller
from joulemeter.transport.connect import connect

WIRE, WIDTH = "bench/1", 40


def channel(name, quantity, unit, offset):
    row = Accuracy(
        range=None, gain=Limit(value=0.001), offset=Limit(value=offset), source="its data sheet", verified=True
    )
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=(row,), refresh_s=0.01)


INFO = Info(
    key="bench",
    maker="Somebody",
    models=("Bench meter",),
    summary="A meter on somebody's bench.",
    wire=WIRE,
    transport="serial",
    channels=(channel("current", Quantity.CURRENT, "A", 1e-4), channel("voltage", Quantity.VOLTAGE, "V", 1e-3)),
    rates_hz=(100.0,),
    verified=Verified.SIMULATOR,
    verified_note="A test.",
    load="100mA/600ms/d0,20mA/400ms",
    load_v=5.0,
)


def discover():
    return []


def values(answer):
    try:
        volts, amperes, total, _ = answer.partition(b"\n")[0].decode("ascii").split()
        reading = float(amperes), float(volts)
        return reading if abs(sum(reading) - float(total)) < 1e-6 else None
    except ValueError:
        return None


def open(address, options):
    if options.supply_v is not None or options.declared_v is not None:
        raise UsageError("The bench meter measures the voltage and supplies none.", "Leave the voltage out.")
    INFO.chosen(options)
    return Driver(connect(address))


class Driver(LinkDriver):
    def __init__(self, link):
        self._link = link
        self._poller = Poller(self._ask, WIDTH, "auto", 0.01, "the bench meter")
        if values(self._ask()) is None:
            self.close()
            raise NotFoundError(f"There is no bench meter at {link.address}.", "Check the port.")

    def _ask(self):
        self._link.write(b"?")
        answer = b""
        while (more := self._link.read(0.2)) and not (answer := answer + more).endswith(b"\n"):
            pass
        return answer

    def start(self):
        epoch = self._poller.start(values)
        simulated = self._ask().split()[-1] == b"simulated"
        return Header(
            instrument="bench", model="Bench meter", wire=WIRE, rate_hz=self._poller.rate_hz, epoch=epoch,
            word_bytes=self._poller.word_bytes, channels=INFO.channels, simulated=simulated,
        )  # fmt: skip

    def read(self, timeout_s):
        return self._poller.read(timeout_s)

    def stop(self):
        pass


def decoder(header):
    return PolledDecoder(header, WIRE, values)


class simulate:  # noqa: N801 - it stands where a function does
    def __init__(self, load, options: Options):
        self.load, self.now_s, self.out = load, 0.0, b""

    def receive(self, data):
        amperes = float(self.load.mean_current_a(round(self.now_s * 1e4), 1, 1e4)[0])
        self.out += f"5.0 {amperes:.6f} {5.0 + amperes:.6f} simulated\n".encode() * data.count(b"?")

    def transmit(self, now_s):
        self.now_s, sent, self.out = now_s, self.out, b""
        return sent
