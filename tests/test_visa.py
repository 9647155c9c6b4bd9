"""Sessions to a simulated instrument on each wire, and what they do when it misbehaves."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from scpi_bench import IDENTITY, Bench, Doubly, Terse, codes

from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.scpi import CutShortError, Identity, Scpi, SilentError
from joulemeter.transport import visa, visa_library
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.scpidevice import BentDevice, ByteFault, MessageDevice
from joulemeter.transport.scpiserve import Face, serving
from joulemeter.transport.serve import serve_pty, serve_tcp
from joulemeter.transport.visa_wires import LinkSession

WIRES = ("socket", "vxi11", "hislip", "vicp")
PLENTY = 1_500_007


@contextlib.contextmanager
def talking(device: MessageDevice, wire: str, timeout_s: float = 5.0, retries: int = 1) -> Iterator[Scpi]:
    with (
        serving(device, wire) as where,
        Scpi(visa.open_session(where[wire]), timeout_s=timeout_s, retries=retries) as scpi,
    ):
        yield scpi


@pytest.mark.parametrize("wire", WIRES)
def test_words_blocks_and_errors_on_every_wire(wire: str) -> None:
    device = Bench()
    with talking(device, wire) as scpi:
        assert scpi.identify() == Identity(
            maker="RIGOL TECHNOLOGIES", model="DS1104Z", serial="DS1ZA000000001", firmware="00.04.04.SP3"
        )
        scpi.write(":LEV 3", ":LEV 5")
        assert scpi.ask(":LEV?") == "5"
        assert scpi.ask(":LEV 7", ":LEV?", "*STB?").startswith("7;")
        for size in (1, 8, 4096, PLENTY):
            assert scpi.ask_block(f"BLOCK? {size}").tobytes() == codes(size)
        assert scpi.ask_number(":LEV?") == 7.0
        with pytest.raises(UsageError, match="-224 Illegal parameter value"):
            scpi.command(":LEV x")
        assert scpi.errors() == []


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("device", [Terse, Doubly])
def test_other_ends_of_replies(wire: str, device: type[Bench]) -> None:
    """No line feed at all after a block, and two after everything, of which the second may come late."""
    with talking(device(), wire) as scpi:
        for _ in range(3):
            assert scpi.ask_block("BLOCK? 1000").tobytes() == codes(1000)
        if not (wire == "socket" and device is Terse):
            assert [scpi.ask("*IDN?") for _ in range(3)] == [IDENTITY] * 3


@pytest.mark.parametrize("wire", WIRES)
def test_lengths_at_the_edges_of_reads(wire: str) -> None:
    """pyvisa-py 0.8.1 waits for ever for a VXI-11 reply that is an exact multiple of what is read at a time."""
    with talking(Terse(), wire, timeout_s=2.0, retries=0) as scpi:
        edges = (64, 20480, 40960, visa_library.CHUNK_BYTES, 2 * visa_library.CHUNK_BYTES, 1 << 20)
        for size in (edge + step for edge in edges for step in (-27, -11, -1, 0)):
            assert len(scpi.ask_block(f"BLOCK? {size}")) == size


@pytest.mark.parametrize("wire", WIRES)
def test_dtypes_and_both_byte_orders(wire: str) -> None:
    with talking(Bench(), wire) as scpi:
        said = "SAY? " + b"#14\x0a\xff\xff\x0a".hex()
        np.testing.assert_array_equal(scpi.ask_block(said, dtype="<i2"), [-246, 2815])
        np.testing.assert_array_equal(scpi.ask_block(said, dtype=">i2"), [2815, -246])
        np.testing.assert_array_equal(scpi.ask_block(said, dtype=np.int8), [10, -1, -1, 10])
        with pytest.raises(DataError, match="not whole samples of 2 bytes"):
            scpi.ask_block("BLOCK? 5", dtype="<i2")


@pytest.mark.parametrize("wire", WIRES)
def test_indefinite_blocks(wire: str) -> None:
    """A Keithley's #0: to its end where the wire marks it, by count on a raw socket, or refused."""
    payload = bytes(range(256)) * 100 + b"\n"
    said = "SAY? " + (b"#0" + payload).hex()
    with talking(Bench(), wire) as scpi:
        if wire == "socket":
            with pytest.raises(DataError, match="cannot be seen on a raw socket"):
                scpi.ask_block(said)
            assert scpi.ask_block(said, length=len(payload)).tobytes() == payload
        else:
            assert scpi.ask_block(said).tobytes() == payload
        assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_a_header_that_counts_samples(wire: str) -> None:
    """Siglent SDS2000X+ up to 1.3.9R6 in WORD mode: known, the true length is given; not known, it is told."""
    payload = codes(2000)
    said = "SAY? " + (b"#9000001000" + payload).hex()
    with talking(Bench(), wire) as scpi:
        assert scpi.ask_block(said, length=2000).tobytes() == payload
        with pytest.raises(DataError, match="announced 1000 bytes, but more came"):
            scpi.ask_block(said)
        assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_text_instead_of_a_block(wire: str) -> None:
    with talking(Bench(), wire) as scpi:
        with pytest.raises(DataError, match=r"'\+0' instead of a data block"):
            scpi.ask_block("SAY? 2b30")
        assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_progress_and_giving_up(wire: str) -> None:
    told: list[tuple[int, int]] = []
    with talking(Bench(), wire) as scpi:
        scpi.ask_block(f"BLOCK? {PLENTY}", progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (PLENTY, PLENTY)
        assert told == sorted(told)
        assert len(told) > 1

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scpi.ask_block(f"BLOCK? {PLENTY}", progress=stop)
        assert scpi.ask("*IDN?") == IDENTITY, "the rest of the block is not taken for an answer"


@pytest.mark.parametrize("wire", WIRES)
def test_silence_is_a_named_error_and_the_session_goes_on(wire: str) -> None:
    device = Bench()
    with talking(device, wire, timeout_s=0.2) as scpi:
        with pytest.raises(SilentError, match=r"did not answer SILENT\? within 0.2 s"):
            scpi.ask("SILENT?")
        assert device.asked == ["SILENT?"] * 2, "asked once more after a device clear"
        assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_a_stall_in_the_middle_is_asked_again(wire: str) -> None:
    class Stalling(Bench):
        """Forgets the second half of its first block."""

        def answer(self, command: str) -> bytes | None:
            given = super().answer(command)
            if command == "BLOCK? 5000" and self.asked.count(command) == 1:
                assert given is not None
                return given[:2000]
            return given

        @property
        def ended(self) -> bool:
            return super().ended and self.asked.count("BLOCK? 5000") > 1

    with talking(Stalling(), wire, timeout_s=0.3) as scpi:
        assert scpi.ask_block("BLOCK? 5000").tobytes() == codes(5000)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("at", [0, 12, 700_000])
def test_unplugged_at_any_byte_keeps_what_arrived(wire: str, at: int) -> None:
    begun = time.monotonic()
    device = BentDevice(Bench(), [ByteFault(kind="unplug", at=at)])
    with talking(device, wire, timeout_s=0.5, retries=0) as scpi, pytest.raises(IncompleteError) as caught:
        scpi.ask_block(f"BLOCK? {PLENTY}")
    assert time.monotonic() - begun < 20
    if at > 11 and wire in ("socket", "vicp"):
        error = caught.value
        assert isinstance(error, CutShortError)
        assert error.data.tobytes() == codes(PLENTY)[: at - 11]
        assert error.expected == PLENTY
        assert f"after {at - 11} of {PLENTY} bytes" in str(error)


@pytest.mark.parametrize("wire", WIRES)
def test_a_stall_for_good_keeps_what_arrived(wire: str) -> None:
    """pyvisa loses the bytes of the call that timed out: at most CHUNK_BYTES."""
    at = 1_000_000
    device = BentDevice(Bench(), [ByteFault(kind="stall", at=at)])
    with talking(device, wire, timeout_s=0.5, retries=0) as scpi, pytest.raises(CutShortError) as caught:
        scpi.ask_block(f"BLOCK? {PLENTY}")
    kept = caught.value.data
    assert kept.tobytes() == codes(PLENTY)[: len(kept)]
    lost = 0 if wire in ("socket", "vicp") else visa_library.CHUNK_BYTES
    assert at - 11 - lost <= len(kept) <= at - 11
    assert "fell silent for 0.5 s" in str(caught.value)


@pytest.mark.parametrize("wire", WIRES)
def test_a_late_reply_is_not_taken_for_the_next(wire: str) -> None:
    """The answer to the first question comes while the second one waits for its own."""

    class Late(Bench):
        def answer(self, command: str) -> bytes | None:
            self.latency_s = 0.4 if command == "LEV?" else 0.0
            return super().answer(command)

    with talking(Late(), wire, timeout_s=0.2, retries=0) as scpi:
        with pytest.raises(SilentError):
            scpi.ask("LEV?")
        for _ in range(4):
            assert scpi.ask("STAT?") == "STOP"
            time.sleep(0.1)


@pytest.mark.parametrize("wire", WIRES)
def test_stale_output_is_thrown_away(wire: str) -> None:
    """Somebody asked and never read; then the next program comes."""
    with serving(Bench(), wire) as where:
        first = visa.open_session(where[wire])
        first.write(b"BLOCK? 100000\n")
        time.sleep(0.05)
        first.write(b"LEV?\n")
        time.sleep(0.05)
        scpi = Scpi(first, timeout_s=2.0)
        assert scpi.ask("*IDN?") == IDENTITY
        first.close()
        with Scpi(visa.open_session(where[wire]), timeout_s=2.0) as second:
            assert second.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_the_wrong_interface_is_explained(wire: str) -> None:
    """The words of a WaveSurfer, pyvisa issue 777."""
    warning = b"WARNING : CURRENT REMOTE CONTROL INTERFACE IS TCPIP"
    with talking(Bench(), wire) as scpi:
        with pytest.raises(AccessError, match="another interface only: TCPIP") as caught:
            scpi.ask("SAY? " + warning.hex())
        assert "vicp:HOST" in caught.value.remedy
        with pytest.raises(AccessError):
            scpi.ask_block("SAY? " + warning.hex())
        assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("wire", WIRES)
def test_waiting_asks_and_does_not_block(wire: str) -> None:
    device = Bench()
    with talking(device, wire) as scpi:
        scpi.write("RUN 0.1")
        assert scpi.wait("STAT?", lambda reply: reply == "STOP", 5.0, "trigger") == "STOP"
        assert device.asked.count("STAT?") > 2
        scpi.write("RUN 0.1")
        scpi.wait_complete(5.0)
        assert not device.busy()
        scpi.write("RUN 60")
        with pytest.raises(IncompleteError, match=r"No trigger came within 0.1 s .*STAT\? says 'RUN'"):
            scpi.wait("STAT?", lambda reply: reply == "STOP", 0.1, "trigger")
        with pytest.raises(IncompleteError, match="Stopped while waiting for the trigger"):
            scpi.wait("STAT?", lambda reply: reply == "STOP", 60.0, "trigger", stopped=lambda: True)
        with pytest.raises(SilentError):
            scpi.ask("*OPC?", timeout_s=0.2)


def test_a_vicp_reply_of_an_earlier_question_is_skipped() -> None:
    """Blocks written out by hand after the protocol's description; numbers are kept from version 1a on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(ConnectionError):
            head = client.recv(100)
            assert head == b"\xc1\x01\x01\x00\x00\x00\x00\x06*IDN?\n"
            client.sendall(b"\x81\x01\xff\x00\x00\x00\x00\x06stale\n")  # number 255: of an earlier connection
            client.sendall(b"\x88\x01\x00\x00\x00\x00\x00\x011")  # a service request
            client.sendall(b"\x80\x01\x01\x00\x00\x00\x00\x03A,B\x81\x01\x01\x00\x00\x00\x00\x00")
            head = client.recv(100)
            # Firmware before 2003: no numbers, and a line feed of its own after the reply.
            client.sendall(b"\x81\x01\x00\x00\x00\x00\x00\x04C,D\n\x81\x01\x00\x00\x00\x00\x00\x01\n")
            client.recv(100)
            client.sendall(b"\x81\x01\x00\x00\x00\x00\x00\x04E,F\n")
            client.recv(100)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            client.recv(100)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    address = "vicp:{}:{}".format(*listener.getsockname())
    with listener, Scpi(visa.open_session(address), timeout_s=2.0, retries=0) as scpi:
        assert [scpi.ask("*IDN?") for _ in range(3)] == ["A,B", "C,D", "E,F"]
        with pytest.raises(IncompleteError, match="what is not VICP"):
            scpi.ask("*IDN?")
    server.join(5)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_plain_servers_of_simulated_meters_and_links_do_as_well() -> None:
    stop = threading.Event()
    addresses: list[str] = []
    ready = threading.Event()

    def announce(address: str) -> None:
        addresses.append(address)
        ready.set()

    for serve in (
        lambda: serve_tcp(Bench(), ("127.0.0.1", 0), announce, stop.is_set),
        lambda: serve_pty(Bench(), announce, stop.is_set),
    ):
        ready.clear()
        stop.clear()
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        assert ready.wait(5)
        with Scpi(visa.open_session(addresses[-1]), timeout_s=1.0) as scpi:
            assert scpi.identify().model == "DS1104Z"
            assert scpi.ask_block("BLOCK? 50000").tobytes() == codes(50000)
            with pytest.raises(SilentError):
                scpi.ask("SILENT?", timeout_s=0.1)
            assert scpi.ask("*IDN?") == IDENTITY
        stop.set()
        server.join(5)
    with Scpi(LinkSession(LoopbackLink(Bench()))) as scpi:
        assert scpi.ask_block("BLOCK? 300000").tobytes() == codes(300000)


@pytest.mark.parametrize(
    ("address", "kind", "where"),
    [
        ("192.168.1.5:5025", "socket", ("192.168.1.5", 5025)),
        ("tcp://scope.lan:5555", "socket", ("scope.lan", 5555)),
        ("TCPIP0::scope::5025::SOCKET", "socket", ("scope", 5025)),
        ("[fe80::1]:5025", "socket", ("fe80::1", 5025)),
        ("vicp:10.0.0.1", "vicp", ("10.0.0.1", 1861)),
        ("vicp:10.0.0.1:1862", "vicp", ("10.0.0.1", 1862)),
        ("VICP::10.0.0.1::INSTR", "vicp", ("10.0.0.1", 1861)),
        ("VICP::10.0.0.1,1862::INSTR", "vicp", ("10.0.0.1", 1862)),
        ("/dev/ttyUSB0", "serial", "/dev/ttyUSB0"),
        ("ASRL/dev/ttyUSB0::INSTR", "serial", "/dev/ttyUSB0"),
        ("COM3", "serial", "COM3"),
        ("TCPIP::10.0.0.1::INSTR", "library", "TCPIP::10.0.0.1::INSTR"),
        ("TCPIP::10.0.0.1,5055::inst0::INSTR", "library", "TCPIP::10.0.0.1,5055::inst0::INSTR"),
        ("TCPIP::10.0.0.1::hislip0::INSTR", "library", "TCPIP::10.0.0.1::hislip0::INSTR"),
        ("USB0::0x1AB1::0x04CE::DS1ZA1::INSTR", "library", "USB0::0x1AB1::0x04CE::DS1ZA1::INSTR"),
        ("GPIB0::12::INSTR", "library", "GPIB0::12::INSTR"),
        ("scope.lan", "library", "TCPIP::scope.lan::INSTR"),
    ],
)
def test_addresses(address: str, kind: str, where: object, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, object]] = []

    def note(name: str, first: int, last: int) -> object:
        def take(*given: object) -> SimpleNamespace:
            picked = given[first:last]
            opened.append((name, picked[0] if len(picked) == 1 else picked))
            return SimpleNamespace(address=given[0])

        return take

    monkeypatch.setattr(visa, "SocketSession", note("socket", 1, 3))
    monkeypatch.setattr(visa, "VicpSession", note("vicp", 1, 3))
    monkeypatch.setattr(visa, "SerialLink", note("serial", 0, 1))
    monkeypatch.setattr(visa, "LibrarySession", note("library", 0, 1))
    visa.open_session(address)
    assert opened == [(kind, where)]


def test_a_bare_host_leads_where_the_driver_says() -> None:
    with serving(Bench(), "socket") as where:
        port = where["socket"].split("::")[2]
        with Scpi(visa.open_session("127.0.0.1", bare="{}:" + port)) as scpi:
            assert scpi.ask("*IDN?") == IDENTITY


@pytest.mark.parametrize("address", ["", "a b", "x:y", "/dev/x:5"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        visa.open_session(address)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:{}",
        "vicp:127.0.0.1:{}",
        "TCPIP::127.0.0.1,{}::inst0::INSTR",
        "TCPIP::127.0.0.1::hislip0,{}::INSTR",
        "no-such-host.invalid:{}",
        "/dev/no-such-port-{}",
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_there(address: str) -> None:
    """pyvisa-py leaves the socket open that could not be connected."""
    with pytest.raises(NotFoundError):
        visa.open_session(address.format(free_port()), timeout_s=1.0)
    gc.collect()


def test_a_mute_or_foreign_device_is_not_found() -> None:
    """The terminal port of a Keysight scope greets and echoes."""
    mute = BentDevice(Bench(), [ByteFault(kind="stall", at=0)])
    with talking(mute, "socket", timeout_s=0.2) as scpi, pytest.raises(NotFoundError, match=r"does not answer \*IDN"):
        scpi.identify()

    class Terminal(Bench):
        identity = "Welcome to Keysight's DSO-X 3024T"

    with talking(Terminal(), "socket") as scpi, pytest.raises(NotFoundError, match="raw socket port"):
        scpi.identify()


@pytest.mark.parametrize(
    ("raised", "expected", "says"),
    [
        (ValueError("Please install PyUSB to use this resource type.\nNo module named 'usb'"), NotFoundError, "libusb"),
        (ValueError("Please install linux-gpib (Linux) or gpib-ctypes"), MissingExtraError, "gpib-ctypes"),
        (ValueError("No device found."), NotFoundError, "Nothing answers"),
        (PermissionError(13, "Access denied (insufficient permissions)"), AccessError, "udev"),
        (Exception("error creating link: 11"), AccessError, "in use by another program"),
    ],
)
def test_a_library_that_cannot_open_says_why(
    raised: Exception, expected: type[JouleMeterError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of pyvisa-py 0.8.1 and pyusb."""
    pytest.importorskip("usb")

    def refuse(*given: object, **named: object) -> None:
        raise raised

    monkeypatch.setattr(visa_library, "_manager", lambda: SimpleNamespace(open_resource=refuse))
    with pytest.raises(expected, match=says):
        visa.open_session("USB0::0x1AB1::0x04CE::DS1ZA1::INSTR")


def test_usb_that_is_not_there_is_not_found() -> None:
    """Without libusb and without the device alike."""
    with pytest.raises((NotFoundError, MissingExtraError)):
        visa.open_session("USB0::0x1AB1::0x04CE::NOSUCH::INSTR")


def test_discovery_asks_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Bench(), "vxi11") as where:
        port = free_port()
        there = [where["vxi11"], f"TCPIP::127.0.0.1,{port}::inst0::INSTR", "ASRL/dev/ttyACM0::INSTR"]
        monkeypatch.setattr(
            visa_library, "_manager", lambda: SimpleNamespace(list_resources=lambda query: tuple(there))
        )
        assert visa_library.listed(1.0) == sorted(there[:2]), "serial ports are not asked"
        real = visa_library._open
        monkeypatch.setattr(visa_library, "_open", real)
        seen = {one.address: one for one in visa._look(1.0)}
        assert set(seen) == set(there[:2])


def test_discovery_finds_by_identity_and_tells_what_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = "USB0::0x1AB1::0x04CE::DS1ZA1::INSTR"
    found = (
        visa.Seen(address="TCPIP::10.0.0.7::INSTR", identity=Identity(maker="LECROY", model="WS3054", serial="L1")),
        visa.Seen(address="TCPIP::10.0.0.8::INSTR", identity=Identity(maker="RIGOL TECHNOLOGIES", model="DS1104Z")),
        visa.Seen(address=locked, error=AccessError("No permission to open it.", "See the doctor.")),
    )
    monkeypatch.setattr(visa, "look", lambda: found)
    rigols = visa.discover("rigol", lambda one: one.maker.startswith("RIGOL"), vendors=(0x1AB1,))
    assert [(one.address, one.problem) for one in rigols] == [
        ("TCPIP::10.0.0.8::INSTR", None),
        (locked, "No permission to open it."),
    ]
    (lecroy,) = visa.discover("lecroy", lambda one: one.maker == "LECROY", vendors=(0x05FF,))
    assert (lecroy.address, lecroy.serial, lecroy.description) == ("TCPIP::10.0.0.7::INSTR", "L1", "LECROY WS3054")


def test_discovery_is_not_held_up_by_a_slow_library(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(
        visa_library, "_manager", lambda: SimpleNamespace(list_resources=lambda query: over.wait(60) or ())
    )
    begun = time.monotonic()
    assert visa_library.listed(0.1) == []
    over.set()
    assert time.monotonic() - begun < 30


def test_discovery_without_any_library_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise MissingExtraError("No VISA library can be loaded.", "pyvisa-py")

    monkeypatch.setattr(visa_library, "_manager", absent)
    assert visa_library.listed(1.0) == []


def test_closing_twice_and_after_the_end() -> None:
    with serving(Bench(), *WIRES) as where:
        sessions = [visa.open_session(address) for address in where.values()]
    for session in sessions:
        session.close()
        session.close()


def test_the_sessions_of_plain_sockets_import_no_pyvisa() -> None:
    with serving(Bench(), "socket", "vicp") as where:
        program = (
            "import sys; from joulemeter.scpi import Scpi; from joulemeter.transport.visa import open_session\n"
            "for one in sys.argv[1:]:\n"
            "    with Scpi(open_session(one)) as scpi: print(scpi.ask('*IDN?'))\n"
            "assert 'pyvisa' not in sys.modules"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, *where.values()], capture_output=True, text=True, timeout=60, check=True
        )
    assert done.stdout.splitlines() == [IDENTITY, IDENTITY]


def test_a_face_that_cannot_be_served() -> None:
    with pytest.raises(UsageError, match="no face 'gpib'"), serving(Bench(), "gpib"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="Cannot listen"), serving(Bench(), Face(kind="socket", port=port)):
            pass
