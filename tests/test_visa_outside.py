"""Clients of others against the simulated wires, and the speed of ours beside pyvisa's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import bench_visa
import numpy as np
import pytest
from scpi_bench import IDENTITY, Bench, codes

from joulemeter.errors import UsageError
from joulemeter.scpi import Scpi
from joulemeter.transport.scpiserve import Face, serving
from joulemeter.transport.visa import open_session

pytestmark = pytest.mark.outside


@contextlib.contextmanager
def pyvisa_resource(address: str, **options: Any) -> Iterator[Any]:
    pyvisa = pytest.importorskip("pyvisa")
    pytest.importorskip("pyvisa_py")
    resource = pyvisa.ResourceManager("@py").open_resource(address, timeout=5000, **options)
    with contextlib.closing(resource):
        yield resource


@pytest.mark.parametrize("wire", ["socket", "vxi11", "hislip"])
def test_pyvisa(wire: str) -> None:
    ends = {"read_termination": "\n"} if wire == "socket" else {}
    with serving(Bench(), wire) as where, pyvisa_resource(where[wire], write_termination="\n", **ends) as resource:
        assert resource.query("*IDN?").strip() == IDENTITY
        got = resource.query_binary_values("BLOCK? 500001", datatype="B", container=np.array)
        assert got.astype(np.uint8).tobytes() == codes(500001)
        resource.write("LEV 4;LEV?")
        assert resource.read().strip() == "4"
        if wire != "socket":
            assert resource.read_stb() & 0x10 == 0
            resource.write("*IDN?")
            assert resource.read_stb() & 0x10, "message available"
            if wire == "hislip":
                # Its device clear does not throw away what is on its way, as IVI-6.1 wants.
                assert resource.read().strip() == IDENTITY
            resource.clear()
            assert resource.read_stb() & 0x10 == 0
            assert resource.query("LEV?").strip() == "4"


def test_python_vxi11() -> None:
    """Its instrument class asks a portmapper; its core client takes the port."""
    vxi11 = pytest.importorskip("vxi11.vxi11")
    with serving(Bench(), "vxi11") as where:
        port = int(where["vxi11"].split("::")[1].split(",")[1])
        client = vxi11.CoreClient("127.0.0.1", port)
        with contextlib.closing(client):
            error, link, _, most = client.create_link(1, 0, 1000, b"inst0")
            assert (error, most > 0) == (0, True)
            assert client.device_write(link, 1000, 1000, vxi11.OP_FLAG_END, b"*IDN?") == (0, 5)
            assert client.device_read(link, 10, 1000, 1000, 0, 0) == (0, vxi11.RX_REQCNT, IDENTITY[:10].encode())
            rest = IDENTITY[10:].encode() + b"\n"
            assert client.device_read(link, 1000, 1000, 1000, 0, 0) == (0, vxi11.RX_END, rest)
            assert client.device_read(link, 10, 50, 1000, 0, 0)[0] == vxi11.ERR_IO_TIMEOUT
            client.device_write(link, 1000, 1000, vxi11.OP_FLAG_END, b"*IDN?")
            assert client.device_clear(link, 0, 1000, 1000) == 0
            assert client.device_read(link, 10, 50, 1000, 0, 0)[0] == vxi11.ERR_IO_TIMEOUT
            flags = vxi11.OP_FLAG_TERMCHAR_SET
            client.device_write(link, 1000, 1000, vxi11.OP_FLAG_END, b"*IDN?")
            assert client.device_read(link, 1000, 1000, 1000, flags, ord(","))[1:] == (
                vxi11.RX_CHR,
                b"RIGOL TECHNOLOGIES,",
            )
            assert client.device_write(99, 1000, 1000, vxi11.OP_FLAG_END, b"x")[0] == vxi11.ERR_INVALID_LINK_IDENTIFIER
            assert client.create_intr_chan(0, 0, 0, 0, 0) == vxi11.ERR_OPERATION_NOT_SUPPORTED
            assert client.destroy_link(link) == 0


@contextlib.contextmanager
def mapped(device: Bench) -> Iterator[None]:
    """With a portmapper at its fixed port, which needs privileges."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(serving(device, "vxi11", Face(kind="portmapper", port=111)))
        except UsageError as error:
            pytest.skip(error.what)
        yield


def test_python_vxi11_by_portmapper() -> None:
    vxi11 = pytest.importorskip("vxi11")
    with mapped(Bench()):
        instrument = vxi11.Instrument("127.0.0.1")
        with contextlib.closing(instrument):
            assert instrument.ask("*IDN?") == IDENTITY
            block = instrument.ask_raw(b"BLOCK? 300000")
    assert block == b"#9000300000" + codes(300000) + b"\n"


def test_our_session_by_portmapper() -> None:
    with mapped(Bench()), Scpi(open_session("127.0.0.1")) as scpi:
        assert scpi.ask("*IDN?") == IDENTITY


def test_pyvicp() -> None:
    pyvicp = pytest.importorskip("pyvicp")
    with serving(Bench(), "vicp") as where:
        client = pyvicp.Client("127.0.0.1", port=int(where["vicp"].rpartition(":")[2]), timeout=5)
        client.timeout = 5
        with contextlib.closing(client):
            client.send(b"*IDN?")
            assert bytes(client.receive()) == IDENTITY.encode() + b"\n"
            client.send(b"BLOCK? 300000")
            assert bytes(client.receive()) == b"#9000300000" + codes(300000) + b"\n"
            # It drops by its number the reply that nobody read.
            client.send(b"BLOCK? 300000")
            client.send(b"LEV?")
            assert bytes(client.receive()) == b"0\n"
            client.send(b"*IDN?")
            client.device_clear()
            client.send(b"LEV?")
            assert bytes(client.receive()) == b"0\n"


def test_pyvisa_over_vicp() -> None:
    """It goes to the registered port."""
    pytest.importorskip("pyvicp")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(serving(Bench(), Face(kind="vicp", port=1861)))
        except UsageError as error:
            pytest.skip(error.what)
        resource = held.enter_context(pyvisa_resource("VICP::127.0.0.1::INSTR", write_termination="\n"))
        assert resource.query("*IDN?").strip() == IDENTITY


@pytest.mark.skipif(shutil.which("lxi") is None, reason="lxi-tools are not installed")
def test_lxi_tools() -> None:
    """The client of lxi-tools, raw and by VXI-11, which it reaches through a portmapper only."""
    with serving(Bench(), "socket") as where:
        port = where["socket"].split("::")[2]
        command = ["lxi", "scpi", "--address", "127.0.0.1", "--port", port, "--raw", "*IDN?"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip() == IDENTITY
    with mapped(Bench()):
        command = ["lxi", "scpi", "--address", "127.0.0.1", "*IDN?"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip() == IDENTITY


@pytest.mark.bench
def test_a_raw_socket_is_read_at_least_5_times_as_fast_as_by_pyvisa() -> None:
    """24 MB, in one run; usually above 15. The table: bench_visa.py."""
    pytest.importorskip("pyvisa_py")
    speeds = bench_visa.rows(bench_visa.BYTES, 3, ("socket",))
    assert speeds["socket", "joulemeter"] >= 5 * speeds["socket", "pyvisa"]
