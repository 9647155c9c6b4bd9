"""What SCPI instruments say, taken apart: words from manuals and from users' reports."""

from __future__ import annotations

import math

import pytest

from joulemeter.errors import DataError
from joulemeter.scpi import (
    BlockHeader,
    Complaint,
    Identity,
    block_header,
    number,
    numbers,
    parse_complaint,
    parse_identity,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Rigol DS1000Z Programming Guide, *IDN?
        (
            "RIGOL TECHNOLOGIES,DS1104Z,DS1ZA000000001,00.04.04\n",
            Identity(maker="RIGOL TECHNOLOGIES", model="DS1104Z", serial="DS1ZA000000001", firmware="00.04.04"),
        ),
        # pyvisa issue 777
        (
            "LECROY,WS3054,LCRY3702N14196,7.7.2",
            Identity(maker="LECROY", model="WS3054", serial="LCRY3702N14196", firmware="7.7.2"),
        ),
        # The same with COMM_HEADER on
        (
            "*IDN LECROY,WS3054,LCRY3702N14196,7.7.2",
            Identity(maker="LECROY", model="WS3054", serial="LCRY3702N14196", firmware="7.7.2"),
        ),
        # IEEE 488.2, 10.14.3: 0 where serial number or firmware are not available
        ("YOKOGAWA,WT310E,0,0", Identity(maker="YOKOGAWA", model="WT310E")),
        ("ACME,PSU", Identity(maker="ACME", model="PSU")),
        (
            "TEKTRONIX,MSO44,C012345,CF:91.1CT FV:1.2, extra",
            Identity(maker="TEKTRONIX", model="MSO44", serial="C012345", firmware="CF:91.1CT FV:1.2, extra"),
        ),
    ],
)
def test_identities(text: str, expected: Identity) -> None:
    assert parse_identity(text) == expected


@pytest.mark.parametrize("text", ["", "hello", ",,,", "Welcome to Keysight's terminal", "\x00\xff,\x01"])
def test_what_is_no_identity(text: str) -> None:
    assert parse_identity(text) is None


def test_numbers_of_scpi_99() -> None:
    """Volume 1, 7.2.1: 9.9E37 is infinity, 9.91E37 not a number. A WT310 sends the latter as float32 0x7E951BEE."""
    assert numbers("+1.000E-3, -2,3") == [1e-3, -2.0, 3.0]
    assert number("9.91E+37") is None
    assert number("9.9099998e+37") is None
    assert number("9.9E37") == math.inf
    assert number("-9.90000E+37") == -math.inf
    with pytest.raises(DataError, match="is not a number"):
        number("20E-3 V")


def test_error_queue() -> None:
    assert parse_complaint('-113,"Undefined header"') == Complaint(code=-113, text="Undefined header")
    # Keysight InfiniiVision Programmer's Guide: the sign is there for zero as well.
    assert parse_complaint('+0,"No error"') is None
    assert parse_complaint('0,"No error"\n') is None
    assert parse_complaint("0") is None
    # Tektronix with SYST:ERR? gives details after a semicolon.
    assert parse_complaint('-222,"Data out of range; :CH1:SCALE"') == Complaint(
        code=-222, text="Data out of range; :CH1:SCALE"
    )
    with pytest.raises(DataError):
        parse_complaint("RIGOL")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#41200\x00", BlockHeader(start=6, length=1200)),
        # Rigol: #9000001200
        (b"#9000001200....", BlockHeader(start=11, length=1200)),
        # LeCroy, headers off and on; Siglent in sequence mode
        (b"ALL,#9000000346WAVEDESC", BlockHeader(start=15, length=346)),
        (b"C1:WF ALL,#9000000346WAVEDESC", BlockHeader(start=21, length=346)),
        (b"\nDESC,#9000000346WAVEDESC", BlockHeader(start=17, length=346)),
        # Keithley
        (b"#0\x00\x00", BlockHeader(start=2, length=None)),
        # Rohde & Schwarz above 1 GB
        (b"#(1073741824)\x01", BlockHeader(start=13, length=1073741824)),
        (b"#10", BlockHeader(start=3, length=0)),
    ],
)
def test_block_headers(head: bytes, expected: BlockHeader) -> None:
    assert block_header(head) == expected
    for size in range(min(expected.start, head.index(b"#") + 2)):
        assert block_header(head[:size]) is None, "incomplete is not wrong"


@pytest.mark.parametrize(
    "head", [b"+0\n", b'-113,"Undefined header"\n', b"#9 00001200", b"#A12", b"x" * 64, b"1.0E0\n#42000", b"#(12x)"]
)
def test_what_is_no_block(head: bytes) -> None:
    with pytest.raises(DataError, match="instead of a data block"):
        block_header(head)


@pytest.mark.outside
@pytest.mark.parametrize("head", [b"#41200\x00", b"#9000001200....", b"ALL,#9000000346WAVEDESC"])
def test_pyvisa_reads_the_same_headers(head: bytes) -> None:
    util = pytest.importorskip("pyvisa.util")
    mine = block_header(head)
    assert mine is not None
    assert util.parse_ieee_block_header(head) == (mine.start, mine.length)


@pytest.mark.outside
def test_pyvisa_reads_the_same_header_of_rohde_and_schwarz() -> None:
    util = pytest.importorskip("pyvisa.util")
    head = b"#(1073741824)\x01"
    assert util.parse_rs_block_header(head) == (13, 1073741824)
    assert block_header(head) == BlockHeader(start=13, length=1073741824)
