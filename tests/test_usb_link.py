"""USB bulk links: pyusb itself, with a backend below it that stands for libusb, the kernel and a simulated meter."""

from __future__ import annotations

import errno
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from joulemeter.errors import AccessError, IncompleteError, MissingExtraError, NotFoundError
from joulemeter.instrument import Device, Options, UsbId
from joulemeter.instruments import powerz
from joulemeter.instruments.powerz import discovery, driver
from joulemeter.synthetic import parse_load
from joulemeter.transport import UnpluggedError, usb
from joulemeter.transport.faults import FaultyDevice, parse_faults

core = pytest.importorskip("usb.core", reason="pyusb is not installed")

METER, OTHER = UsbId(vendor=0x5FC9, product=0x0063), UsbId(vendor=0x1D6B, product=0x0002)
# The descriptors of a KM003C's first interface, as okhsunrog/km003c-protocol-research lists them.
ENDPOINTS = (0x01, 0x81)
PACKET_BYTES = 64


class Backend:
    """What pyusb asks of libusb, written down; times in seconds of the device's own clock."""

    # pyusb looks all of them up and uses those of the endpoint's kind.
    intr_read = intr_write = iso_read = iso_write = None

    def __init__(self, device: Device, ports: tuple[int, ...] = (1, 3), bound: bool = True) -> None:
        self.device, self.ports, self.bound = device, ports, bound
        self.calls: list[str] = []
        self.refuse: dict[str, int] = {}
        self.now_s = 0.0
        self.inbox = b""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuse:
            raise core.USBError(name, errno=self.refuse[name])

    def enumerate_devices(self) -> list[UsbId]:
        return [OTHER, METER]

    def get_device_descriptor(self, dev: UsbId) -> Any:
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=0x0210, bDeviceClass=0xEF, bDeviceSubClass=2, bDeviceProtocol=1,
            bMaxPacketSize0=32, idVendor=dev.vendor, idProduct=dev.product, bcdDevice=0x0100, iManufacturer=0,
            iProduct=0, iSerialNumber=0, bNumConfigurations=1, address=7, bus=1, port_number=3,
            port_numbers=self.ports, speed=2,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: UsbId, config: int) -> Any:
        return SimpleNamespace(
            bLength=9, bDescriptorType=2, wTotalLength=130, bNumInterfaces=1, bConfigurationValue=1, iConfiguration=0,
            bmAttributes=0x80, bMaxPower=50, extra_descriptors=[],
        )  # fmt: skip

    def get_interface_descriptor(self, dev: UsbId, intf: int, alt: int, config: int) -> Any:
        if intf or alt:
            raise IndexError
        return SimpleNamespace(
            bLength=9, bDescriptorType=4, bInterfaceNumber=0, bAlternateSetting=0, bNumEndpoints=2,
            bInterfaceClass=0xFF, bInterfaceSubClass=0, bInterfaceProtocol=0, iInterface=0, extra_descriptors=[],
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev: UsbId, ep: int, intf: int, alt: int, config: int) -> Any:
        return SimpleNamespace(
            bLength=7, bDescriptorType=5, bEndpointAddress=ENDPOINTS[ep], bmAttributes=2,
            wMaxPacketSize=PACKET_BYTES, bInterval=0, bRefresh=0, bSynchAddress=0, extra_descriptors=[],
        )  # fmt: skip

    def open_device(self, dev: UsbId) -> UsbId:
        self._called("open")
        return dev

    def close_device(self, handle: UsbId) -> None:
        self._called("close")

    def get_configuration(self, handle: UsbId) -> int:
        return 1

    def is_kernel_driver_active(self, handle: UsbId, intf: int) -> bool:
        self._called("active?")
        return self.bound

    def detach_kernel_driver(self, handle: UsbId, intf: int) -> None:
        self._called("detach")
        self.bound = False

    def attach_kernel_driver(self, handle: UsbId, intf: int) -> None:
        self._called("attach")
        self.bound = True

    def claim_interface(self, handle: UsbId, intf: int) -> None:
        self._called("claim")

    def release_interface(self, handle: UsbId, intf: int) -> None:
        self._called("release")

    def bulk_write(self, handle: UsbId, ep: int, intf: int, data: Any, timeout: int) -> int:
        assert (ep, intf) == (0x01, 0)
        self._called("write")
        self._talk(lambda: self.device.receive(bytes(data)))
        return len(data)

    def bulk_read(self, handle: UsbId, ep: int, intf: int, buff: Any, timeout: int) -> int:
        assert (ep, intf, len(buff) % PACKET_BYTES) == (0x81, 0, 0)
        assert timeout > 0, "libusb would wait for ever"
        self._called("read")
        self.now_s += timeout * 1e-3

        def receive() -> None:
            self.inbox += self.device.transmit(self.now_s)

        self._talk(receive)
        if not self.inbox:
            raise core.USBTimeoutError("timeout", errno=errno.ETIMEDOUT)
        taken, self.inbox = self.inbox[: len(buff)], self.inbox[len(buff) :]
        buff[: len(taken)] = type(buff)(buff.typecode, taken)
        return len(taken)

    @staticmethod
    def _talk(say: Any) -> None:
        try:
            say()
        except UnpluggedError as error:
            raise core.USBError("gone", errno=errno.ENODEV) from error


class Echo:
    """A device that says again what it is told."""

    said = b""
    gone = False

    def receive(self, data: bytes) -> None:
        self.said += data

    def transmit(self, now_s: float) -> bytes:
        if self.gone:
            raise UnpluggedError
        sent, self.said = self.said, b""
        return sent


def linked(backend: Backend, address: str = "usb:1-1.3") -> usb.UsbLink:
    return usb.UsbLink(address, [METER], interface=0, endpoint_out=0x01, endpoint_in=0x81, backend=backend)


def test_bytes_go_both_ways_and_close_puts_the_kernels_driver_back() -> None:
    backend = Backend(Echo())
    link = linked(backend)
    assert backend.calls == ["open", "active?", "detach", "claim"]
    assert (link.address, link.usb, backend.bound) == ("usb:1-1.3", METER, False)
    link.write(b"\x0c\x00\x02\x00")
    assert link.read(0.1) == b"\x0c\x00\x02\x00"
    began = time.monotonic()
    assert link.read(0) == b""
    assert time.monotonic() - began < 1
    link.close()
    assert backend.calls[-3:] == ["release", "attach", "close"]
    assert backend.bound
    link.close()
    assert backend.calls.count("attach") == 1
    for use in (lambda: link.read(0.1), lambda: link.write(b"x")):
        with pytest.raises(IncompleteError, match="is closed"):
            use()


def test_without_a_driver_of_the_kernels_none_is_attached() -> None:
    backend = Backend(Echo(), bound=False)
    linked(backend).close()
    assert "attach" not in backend.calls
    assert not backend.bound


def test_where_the_system_knows_no_drivers_the_link_works_all_the_same() -> None:
    class Windows(Backend):
        def is_kernel_driver_active(self, handle: UsbId, intf: int) -> bool:
            raise NotImplementedError

    link = linked(Windows(Echo()))
    link.write(b"x")
    assert link.read(0.1) == b"x"


@pytest.mark.parametrize(("step", "number", "kind", "words"), [
    ("open", errno.EACCES, AccessError, "No permission"),
    ("detach", errno.EPERM, AccessError, "No permission"),
    ("claim", errno.EBUSY, AccessError, "in use by another program"),
    ("claim", errno.ENODEV, NotFoundError, "just gone"),
    ("claim", errno.EIO, NotFoundError, "WinUSB"),
])  # fmt: skip
def test_what_stands_in_the_way_is_said(step: str, number: int, kind: type[Exception], words: str) -> None:
    backend = Backend(Echo())
    backend.refuse = {step: number}
    with pytest.raises(kind, match=words):
        linked(backend)
    # Whatever was taken off has been put back.
    assert backend.bound


def test_the_rule_for_permission_is_printed_to_be_copied() -> None:
    backend = Backend(Echo())
    backend.refuse = {"open": errno.EACCES}
    with pytest.raises(AccessError) as caught:
        linked(backend)
    rule = 'SUBSYSTEMS=="usb", ATTRS{idVendor}=="5fc9", ATTRS{idProduct}=="0063", MODE="0660", TAG+="uaccess"'
    assert rule in caught.value.remedy.splitlines()
    assert "udevadm control --reload" in caught.value.remedy


def test_a_device_that_is_pulled_out_is_incomplete_and_close_is_quiet() -> None:
    device = Echo()
    backend = Backend(device)
    link = linked(backend)
    device.gone = True
    with pytest.raises(IncompleteError, match="lost while reading"):
        link.read(0.1)
    backend.refuse = dict.fromkeys(("write", "release", "attach"), errno.ENODEV)
    with pytest.raises(IncompleteError, match="no longer takes commands"):
        link.write(b"x")
    link.close()


@pytest.mark.parametrize("address", ["usb:1-1.4", "usb:2-1.3", "usb:1/7"])
def test_another_socket_is_another_device(address: str) -> None:
    with pytest.raises(NotFoundError, match=address):
        linked(Backend(Echo()), address)


def test_where_sockets_have_no_numbers_the_device_has_one() -> None:
    linked(Backend(Echo(), ports=()), "usb:1/7").close()


def test_no_libusb_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(**_: Any) -> None:
        raise core.NoBackendError("No backend available")

    monkeypatch.setattr(core, "find", find)
    with pytest.raises(NotFoundError, match="no libusb"):
        usb.UsbLink("usb:1-1.3", [METER], interface=0, endpoint_out=1, endpoint_in=0x81)


def test_a_missing_package_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "usb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "usb", None)
    with pytest.raises(MissingExtraError, match=r"joulemeter\[usb\]"):
        linked(Backend(Echo()))
    (found,) = usb.discover("powerz", [METER], {METER: "a meter"}, root=plugged_in(tmp_path), nodes=tmp_path)
    assert (found.problem, found.remedy) == ("pyusb is not installed.", "pip install 'joulemeter[usb]'")
    # Elsewhere than on Linux nothing can be seen without it.
    assert usb.units([METER], root=tmp_path / "nothing") == []


# -- discovery --------------------------------------------------------------------------------------------------------


def plugged_in(root: Path) -> Path:
    """What Linux shows of a meter, its first interface, a hub, and a device that has half gone."""
    trees = {
        "1-1.3": {"idVendor": "5fc9", "idProduct": "0063", "busnum": "1", "devnum": "12", "product": "POWER-Z"},
        "1-1.3:1.0": {"bInterfaceNumber": "00"},
        "usb1": {"idVendor": "1d6b", "idProduct": "0002", "busnum": "1", "devnum": "1", "serial": "0000:00:14.0"},
        "1-4": {"idVendor": "5fc9"},
        "3-2": {"idVendor": "5fc9", "idProduct": "0061", "busnum": "3", "devnum": "4", "serial": "A1"},
    }
    devices = root / "devices"
    for name, files in trees.items():
        (devices / name).mkdir(parents=True)
        for file, text in files.items():
            (devices / name / file).write_text(f"{text}\n", encoding="ascii")
    return devices


def test_meters_are_found_with_their_names_and_what_stands_in_the_way(tmp_path: Path) -> None:
    root, nodes = plugged_in(tmp_path), tmp_path / "bus"
    (nodes / "001").mkdir(parents=True)
    (nodes / "001" / "012").touch()
    first, second = usb.discover("powerz", discovery.IDS, discovery.NAMES, root=root, nodes=nodes)
    assert (first.address, first.description, first.serial, first.problem) == ("usb:1-1.3", "POWER-Z", None, None)
    assert (second.address, second.description, second.serial) == ("usb:3-2", "POWER-Z KM002C", "A1")
    assert second.problem == f"No permission to open {nodes / '003' / '004'}."
    assert second.remedy is not None
    assert 'ATTRS{idProduct}=="0061"' in second.remedy


def test_meters_are_found_by_pyusb_where_there_is_no_sysfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = core.find
    monkeypatch.setattr(core, "find", lambda **options: find(backend=Backend(Echo()), **options))
    (unit,) = usb.units([METER], root=tmp_path / "nothing")
    assert (unit.address, unit.usb, unit.node) == ("usb:1-1.3", METER, None)


# -- a whole meter behind pyusb ---------------------------------------------------------------------------------------


def behind_pyusb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Backend) -> None:
    find = core.find
    monkeypatch.setattr(core, "find", lambda **options: find(**{**options, "backend": backend}))
    root, nodes = plugged_in(tmp_path), tmp_path / "bus"
    (nodes / "001").mkdir(parents=True)
    (nodes / "001" / "012").touch()
    monkeypatch.setattr(
        discovery, "discover", lambda: usb.discover("powerz", [METER], discovery.NAMES, root=root, nodes=nodes)
    )
    monkeypatch.setattr(driver, "FETCH_S", dict.fromkeys(driver.FETCH_S, 0.0))


@pytest.mark.parametrize("address", ["", "usb:1-1.3"])
def test_a_powerz_streams_through_pyusb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    load = parse_load("1.5A/20ms/d0,500mA/20ms")
    backend = Backend(powerz.simulate(load, Options()))
    behind_pyusb(monkeypatch, tmp_path, backend)
    with powerz.open(address, Options()) as meter:
        head = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(60))
    assert (head.address, head.model, head.simulated) == ("usb:1-1.3", "KM003C", True)
    decoder = powerz.decoder(head)
    blocks = decoder.feed(raw) + decoder.finish()
    values = [value for block in blocks for value in block.data["current"].tolist()]
    assert sum(block.lost_before for block in blocks) == 0
    assert sum(values[:1000]) / 1000 == pytest.approx(load.mean_a, rel=1e-3)
    assert backend.bound


def test_a_powerz_that_is_pulled_out_of_usb_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = FaultyDevice(powerz.simulate(parse_load("1A/10ms"), Options()), parse_faults("unplug@1s"))
    behind_pyusb(monkeypatch, tmp_path, Backend(device))
    with powerz.open("", Options()) as meter:
        meter.start()
        with pytest.raises(IncompleteError):
            for _ in range(1000):
                meter.read(0.1)
