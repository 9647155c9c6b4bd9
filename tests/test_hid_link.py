"""The HID link: on a stand-in for hidapi, on hidapi itself, and on HID devices of the kernel where it can make them."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from joulemeter.errors import AccessError, IncompleteError, MissingExtraError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import fnirsi
from joulemeter.instruments.fnirsi import wire
from joulemeter.synthetic import parse_load
from joulemeter.transport import hid

FNB58 = {
    "path": b"/dev/hidraw7", "vendor_id": 0x2E3C, "product_id": 0x5558, "serial_number": "0001A0000000",
    "product_string": "USB Tester",
}  # fmt: skip
MOUSE = {**FNB58, "path": b"/dev/hidraw1", "product_id": 0x0001}
C1 = {**FNB58, "path": b"/dev/hidraw8", "vendor_id": 0x0483, "product_id": 0x003B, "serial_number": ""}
UHID, OPENFNB58 = Path("/dev/uhid"), Path(os.environ.get("JOULEMETER_OPENFNB58", "/nonexistent"))


class Interface:
    """hid.device: `arriving` are the reports that come, None a broken connection."""

    def __init__(self) -> None:
        self.arriving: list[bytes | None] = []
        self.written: list[bytes] = []
        self.refuses = 0
        self.calls: list[Any] = []

    def open_path(self, path: bytes) -> None:
        self.calls.append(path)
        if path == b"taken":
            raise OSError("open failed")

    def set_nonblocking(self, flag: int) -> None:
        self.calls.append(flag)

    def read(self, length: int, timeout_ms: int = 0) -> list[int]:
        self.calls.append(timeout_ms)
        report = self.arriving.pop(0) if self.arriving else b""
        if report is None:
            raise OSError("read error")
        return list(report[:length])

    def write(self, data: bytes) -> int:
        if self.refuses:
            self.refuses -= 1
            return -1
        self.written.append(data)
        return len(data)

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> Interface:
    """What the stand-in for hidapi opens. It lists FNB58, C1 and a mouse; every path may be opened."""
    one = Interface()
    stand_in = SimpleNamespace(device=lambda: one, enumerate=lambda vendor, product: [C1, MOUSE, FNB58])
    monkeypatch.setitem(sys.modules, "hidraw", stand_in)
    monkeypatch.setitem(sys.modules, "hid", stand_in)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    return one


def info(path: str = "DevSrvsID:4295") -> hid.HidInfo:
    return hid.HidInfo(path=path, vendor=0x2E3C, product=0x5558, serial=None, name=None)


def test_reports_are_read_whole_and_all_that_are_there(interface: Interface) -> None:
    link = hid.HidLink(info())
    interface.arriving = [bytes(64), b"\1" * 64, b"", b"\2" * 64]
    assert link.read(0.25) == bytes(64) + b"\1" * 64
    assert link.read(0) == b"\2" * 64
    assert link.read(0.1) == b""
    # A time in milliseconds; 0 waits for ever unless the interface was told not to.
    assert interface.calls == [b"DevSrvsID:4295", 1, 250, 0, 0, 0, 0, 100]


def test_a_report_is_written_behind_the_number_that_stands_for_none(interface: Interface) -> None:
    link = hid.HidLink(info())
    interface.refuses = 2  # for a moment
    link.write(wire.KEEPALIVE)
    assert interface.written == [b"\0" + wire.KEEPALIVE]
    interface.refuses = 9
    with pytest.raises(IncompleteError, match="no longer takes commands"):
        link.write(wire.KEEPALIVE)


def test_a_lost_connection_is_told(interface: Interface) -> None:
    link = hid.HidLink(info())
    interface.arriving = [bytes(64), None]
    with pytest.raises(IncompleteError, match="was lost"):
        link.read(0.1)
    link.close()
    link.close()


def test_one_that_another_program_holds_is_told_and_closed(interface: Interface) -> None:
    with pytest.raises(AccessError, match="open failed"):
        hid.HidLink(info("taken"))
    assert interface.calls == [b"taken", "close"]


@pytest.mark.skipif(os.name != "posix", reason="paths below /dev")
def test_the_udev_rule_is_told_exactly(monkeypatch: pytest.MonkeyPatch, interface: Interface) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    with pytest.raises(AccessError, match="No permission to open /dev/hidraw7") as told:
        hid.HidLink(info("/dev/hidraw7"))
    # As udev(7) and systemd's 70-uaccess.rules write such a line; keys of the USB device are its parent's: ATTRS.
    rule = (
        'KERNEL=="hidraw*", SUBSYSTEM=="hidraw", ATTRS{idVendor}=="2e3c", ATTRS{idProduct}=="5558", MODE="0660", '
        'TAG+="uaccess"'
    )
    assert rule in told.value.remedy.splitlines()
    (unit,) = [found for found in fnirsi.discover() if found.address == "/dev/hidraw7"]
    assert unit.problem and rule in (unit.remedy or "")


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hidraw", "hid"):
        monkeypatch.setitem(sys.modules, name, None)
    assert fnirsi.discover() == []
    for address in ("", "/dev/hidraw3"):
        with pytest.raises(MissingExtraError, match=r"pip install 'joulemeter\[hid\]'"):
            fnirsi.open(address, Options())
    # There is another package whose module has that name; it is of no use here.
    monkeypatch.setitem(sys.modules, "hid", SimpleNamespace(Device=object, enumerate=list))
    with pytest.raises(MissingExtraError):
        hid.load()


def test_meters_are_found_by_their_ids(interface: Interface) -> None:
    first, second = fnirsi.discover()
    assert (first.address, first.serial, first.description) == ("/dev/hidraw7", "0001A0000000", "FNB58 (USB Tester)")
    assert (second.address, second.serial, second.description) == ("/dev/hidraw8", None, "C1 (USB Tester)")
    with pytest.raises(UsageError, match="More than one") as told:
        fnirsi.open("", Options())
    assert "/dev/hidraw7 (FNB58 (USB Tester), serial 0001A0000000)" in told.value.remedy
    for address in ("0001A0000000", "/dev/hidraw8"):
        with pytest.raises(NotFoundError, match="There is no HID device /dev/hidraw"):
            fnirsi.open(address, Options())
    with pytest.raises(NotFoundError, match="no FNIRSI USB meter at /dev/hidraw1"):
        fnirsi.open("/dev/hidraw1", Options())


class Wired(Interface):
    """The stand-in with a simulated meter behind it."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._began = time.monotonic()

    def read(self, length: int, timeout_ms: int = 0) -> list[int]:
        until = time.monotonic() + timeout_ms / 1000
        while not self.arriving:
            raw = self._device.transmit(time.monotonic() - self._began)
            self.arriving = [raw[at : at + 64] for at in range(0, len(raw), 64)]
            if time.monotonic() >= until:
                break
            time.sleep(0.002)
        return super().read(length)

    def write(self, data: bytes) -> int:
        self._device.receive(data[1:])
        return super().write(data)


def test_a_session_over_hid(monkeypatch: pytest.MonkeyPatch, interface: Interface) -> None:
    wired = Wired(fnirsi.simulate(parse_load("500mA/1s"), Options(settings={"model": "C1"})))
    path = {**C1, "path": b"DevSrvsID:77"}
    stand_in = SimpleNamespace(device=lambda: wired, enumerate=lambda vendor, product: [path, MOUSE])
    monkeypatch.setitem(sys.modules, "hidraw", stand_in)
    monkeypatch.setitem(sys.modules, "hid", stand_in)
    # The model is what USB says and not what the setting says.
    with fnirsi.open("", Options(settings={"model": "FNB58"})) as meter:
        header = meter.start()
        raw, deadline = b"", time.monotonic() + 0.4
        while time.monotonic() < deadline:
            raw += meter.read(0.1)
    assert (header.model, header.address, header.serial, header.simulated) == ("C1", "DevSrvsID:77", None, True)
    assert {report[0] for report in wired.written} == {0} and {len(report) for report in wired.written} == {65}
    blocks = fnirsi.decoder(header).feed(raw)
    assert [(block.first_index, block.lost_before) for block in blocks] == [(0, 0)]
    assert set(blocks[0].data["current"].tolist()) == {0.5}
    assert wired.calls[-1] == "close"


@pytest.mark.outside
def test_hidapi_itself(tmp_path: Path) -> None:
    """That the real package has what the link asks of it, and how it says that something cannot be opened."""
    pytest.importorskip("hidraw" if sys.platform == "linux" else "hid", reason="hidapi is not installed")
    module = hid.load()
    assert {"open_path", "set_nonblocking", "read", "write", "close"} <= set(dir(module.device()))
    assert isinstance(hid.listed([(0x2E3C, 0x5558)]), list)
    if sys.platform == "linux":
        path = tmp_path / "hidraw9"
        path.write_bytes(b"")
        with pytest.raises(AccessError, match="cannot be opened"):
            hid.HidLink(info(str(path)))


# -- the kernel's own HID devices (linux/uhid.h) -----------------------------------------------------------------------

DESTROY, OUTPUT, CREATE2, INPUT2 = 1, 6, 11, 12
BUS_USB = 3
# Vendor-defined, one report of 64 bytes each way, without a number.
DESCRIPTOR = bytes.fromhex("0600ff 0901 a101 1500 26ff00 7508 9540 0901 8102 0901 9540 9102 c0")


@contextlib.contextmanager
def plugged_in(device: Device, model: str) -> Iterator[threading.Event]:
    """The simulator as a HID device of the kernel, until the event that is given is set."""
    usb = wire.MODELS[model].usb
    pulled = threading.Event()
    descriptor = os.open(UHID, os.O_RDWR | os.O_NONBLOCK)

    def run() -> None:
        began = time.monotonic()
        while not pulled.is_set():
            if select.select([descriptor], [], [], 0.004)[0]:
                event = os.read(descriptor, 4380)
                if struct.unpack_from("<I", event)[0] == OUTPUT:
                    data, size = event[4:4100], struct.unpack_from("<H", event, 4100)[0]
                    # hidraw hands on the report's number too.
                    device.receive(data[size - 64 : size])
            raw = device.transmit(time.monotonic() - began)
            for at in range(0, len(raw), 64):
                os.write(descriptor, struct.pack("<IH", INPUT2, 64) + raw[at : at + 64])
        os.write(descriptor, struct.pack("<I", DESTROY))

    name, serial = f"FNIRSI {model}".encode(), b"0001A0000000"
    os.write(
        descriptor,
        struct.pack("<I128s64s64sHHIIII", CREATE2, name, b"", serial, len(DESCRIPTOR), BUS_USB, usb.vendor, usb.product,
                    0x100, 0) + DESCRIPTOR,
    )  # fmt: skip
    plug = threading.Thread(target=run, daemon=True)
    plug.start()
    time.sleep(0.5)
    try:
        yield pulled
    finally:
        pulled.set()
        plug.join(5)
        os.close(descriptor)


needs_uhid = pytest.mark.skipif(not os.access(UHID, os.R_OK | os.W_OK), reason="/dev/uhid cannot be used here")


def simulator(model: str) -> Device:
    made: Device = fnirsi.simulate(parse_load("900mA/400ms,300mA/400ms"), Options(settings={"model": model}))
    return made


@pytest.mark.outside
@needs_uhid
@pytest.mark.parametrize("model", tuple(wire.MODELS))
def test_a_session_with_a_hid_device_of_the_kernel(model: str) -> None:
    with plugged_in(simulator(model), model) as pulled:
        (unit,) = fnirsi.discover()
        assert (unit.serial, unit.problem) == ("0001A0000000", None)
        assert unit.address.startswith("/dev/hidraw") and unit.description.startswith(model)
        with fnirsi.open("", Options()) as meter:
            header = meter.start()
            assert (header.model, header.serial, header.simulated) == (model, "0001A0000000", True)
            with pytest.raises(AccessError, match="another program holds it"):
                fnirsi.open(unit.address, Options())
            raw, deadline = b"", time.monotonic() + 2.0
            while time.monotonic() < deadline:
                raw += meter.read(0.1)
            blocks = fnirsi.decoder(header).feed(raw)
            assert [block.lost_before for block in blocks] == [0]
            current = blocks[0].data["current"]
            assert 180 <= len(current) <= 210
            assert current[:160].mean() == pytest.approx(0.6, rel=1e-3)
            pulled.set()
            with pytest.raises(IncompleteError, match="was lost"):
                while True:
                    meter.read(0.1)


@pytest.mark.outside
@needs_uhid
@pytest.mark.skipif(not OPENFNB58.is_file(), reason="JOULEMETER_OPENFNB58 names no copy of OpenFNB58's fnb58.py")
def test_openfnb58_reads_the_simulator_through_the_kernel() -> None:
    with plugged_in(simulator("FNB58"), "FNB58"):
        (unit,) = fnirsi.discover()
        program = (
            "import runpy, sys; m = runpy.run_path(sys.argv[1]); "
            "m['run_monitor'](m['open_hid'](sys.argv[2]), interval=1.0, count=40)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(OPENFNB58), unit.address],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) == 40, done.stderr
    # It shows the first sample of each report. The first report is what an FNB48 sent first, too.
    assert {float(row[1]) for row in rows[1:]} == {5.0}
    assert {float(row[2]) for row in rows[1:]} >= {0.3, 0.9}
    assert {float(row[6]) for row in rows[1:]} == {25.1}
