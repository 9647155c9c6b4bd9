"""The PPK2's bytes and what is known of a unit before it streams."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ppk2_streams import CONSTANTS, TRANSCRIPT

from joulemeter.capture import Distribution
from joulemeter.errors import DataError, NotFoundError, UsageError
from joulemeter.instruments.ppk2 import channels, discovery, wire


def test_commands_as_the_client_in_the_field_sends_them() -> None:
    # ppk2-api 0.9.2, seen on a pty: set_source_voltage(3300), toggle_DUT_power("ON"), use_source_meter().
    assert wire.regulator(3300) == b"\x0d\x0c\xe4"
    assert wire.regulator(800) == b"\x0d\x03\x20"
    assert wire.power(True) == b"\x0c\x01"
    assert wire.power(False) == b"\x0c\x00"
    assert wire.mode(wire.Mode.SOURCE) == b"\x11\x02"
    assert (wire.START, wire.STOP, wire.METADATA) == (b"\x06", b"\x07", b"\x19")


def test_a_real_units_answer_is_read() -> None:
    metadata = wire.parse_metadata(TRANSCRIPT)
    assert {name: list(row) for name, row in metadata.calibration.constants.items()} == CONSTANTS
    assert metadata.defaulted == ()
    assert metadata.calibrated is False
    assert metadata.supply_v == 3.0
    assert metadata.mode is wire.Mode.SOURCE
    assert metadata.hardware == "9173"
    assert not metadata.simulator


def test_leading_garbage_and_carriage_returns_do_no_harm() -> None:
    garbled = b"\xff\x00\x80R" + TRANSCRIPT.replace(b"\n", b"\r\n")
    assert wire.complete(garbled)
    assert wire.parse_metadata(garbled).calibration == wire.parse_metadata(TRANSCRIPT).calibration


def test_not_complete_before_its_end() -> None:
    assert not wire.complete(TRANSCRIPT[: TRANSCRIPT.index(b"END")])
    assert not wire.complete(b"VENDOR: 1\n")


def test_defaults_for_what_is_absent_or_no_number_and_for_a_shunt_of_zero_only() -> None:
    answer = TRANSCRIPT.replace(b"R1: 101.5865", b"R1: 0").replace(b"GS2: 18.0115", b"GS2: -nan")
    answer = answer.replace(b"O3: 50.4983\n", b"").replace(b"I4: -0.009388455", b"I4: inf")
    metadata = wire.parse_metadata(answer)
    constants = metadata.calibration.constants
    assert metadata.defaulted == ("R1", "GS2", "O3", "I4")
    assert (constants["R"][1], constants["GS"][2], constants["O"][3], constants["I"][4]) == (101.65, 1.0, 0.0, 0.0)
    assert constants["GS"][0] == 0.0  # a zero of the unit's own


def test_an_answer_that_holds_no_calibration_is_refused() -> None:
    with pytest.raises(DataError, match="no calibration"):
        wire.parse_metadata(b"Calibrated: 1\nEND\n")
    with pytest.raises(DataError, match="R0 = 'many'"):
        wire.parse_metadata(TRANSCRIPT.replace(b"1003.3506", b"many"))


@pytest.mark.parametrize(("range_", "code", "volts"), [(0, 300, 3.0), (1, 1000, 1.8), (2, 17, 5.0), (4, 16383, 3.3)])
def test_conversion_is_the_published_formula(range_: int, code: int, volts: float) -> None:
    r, gs, gi, o, s, i, ug = (Fraction(CONSTANTS[name][range_]) for name in ("R", "GS", "GI", "O", "S", "I", "UG"))
    x = (4 * code - o) * Fraction(18, 1638400) / r
    exact = ug * (x * (gs * x + gi) + s * Fraction(volts) + i)
    table_a = wire.Calibration(constants=CONSTANTS).current_table_a(volts)
    assert table_a.shape == (5 * 16384,)
    assert table_a[range_ * 16384 + code] == pytest.approx(float(exact), rel=1e-12, abs=0)


def test_conversion_by_hand() -> None:
    """Defaults, range 0, code 1000: 4000 · 1.8/163840 = 43.9453125 mV over 1031.64 Ω, then x·(x + 1)."""
    table_a = wire.Calibration(constants=wire.DEFAULTS).current_table_a(3.0)
    x = 43.9453125e-3 / 1031.64
    assert table_a[1000] == pytest.approx(x * x + x, rel=1e-12, abs=0)
    assert table_a[1000] == pytest.approx(42.5993e-6, rel=1e-6, abs=0)


def test_accuracy_is_the_makers_table_and_is_widened_where_a_constant_is_missing() -> None:
    good, widened = channels.channels()[0].accuracy, channels.channels([3, 4])[0].accuracy
    assert [row.range for row in good] == [0, 1, 2, 3, 4]
    assert [row.gain.standard for row in good] == [0.10, 0.10, 0.10, 0.10, 0.15]
    assert [row.offset.value for row in good] == [0.2e-6, 0.5e-6, 5e-6, 50e-6, 1e-3]
    assert all(row.verified and row.gain.distribution is Distribution.NORMAL for row in good)
    assert widened[:3] == good[:3]
    assert widened[3].gain.standard == pytest.approx((0.10**2 + 0.12**2 / 3) ** 0.5)
    assert widened[4].offset.standard == pytest.approx(((1e-3) ** 2 / 3 + (8e-3) ** 2 / 3) ** 0.5)
    assert not widened[3].verified


def usb(device: str, location: str, serial: str | None = "D0A1", product: int = 0xC00A, vendor: int = 0x1915) -> Any:
    return SimpleNamespace(
        device=device, location=location, serial_number=serial, vid=vendor, pid=product, product="PPK2"
    )


def test_of_two_ports_the_lower_interface_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joulemeter.ports.os.access", lambda *_: True)
    ports = [
        usb("/dev/ttyACM0", "1-2:1.3"),
        usb("/dev/ttyACM1", "1-2:1.1"),
        usb("/dev/ttyACM2", "1-3:1.1", "E5F6"),
        usb("/dev/ttyUSB0", "1-4", "X", vendor=0x0403),
    ]
    found = discovery.discover("ppk2", ports)
    assert [(unit.address, unit.serial, unit.problem) for unit in found] == [
        ("/dev/ttyACM1", "D0A1", None),
        ("/dev/ttyACM2", "E5F6", None),
    ]
    by_serial = discovery.port_of("E5F6", found)
    assert by_serial is not None
    assert by_serial.address == "/dev/ttyACM2"
    assert discovery.port_of("/dev/ttyS9", found) is None
    with pytest.raises(UsageError, match=r"/dev/ttyACM1 \(PPK2, serial D0A1\), /dev/ttyACM2 \(PPK2, serial E5F6\)"):
        discovery.port_of("", found)
    only = discovery.port_of("", found[1:])
    assert only is not None
    assert only.serial == "E5F6"


def test_two_units_without_serial_numbers_stay_two() -> None:
    ports = [usb("/dev/ttyACM0", "1-2:1.1", None), usb("/dev/ttyACM1", "1-3:1.1", None)]
    assert len(discovery.discover("ppk2", ports)) == 2


def test_none_found_or_none_usable_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="No PPK2 is connected"):
        discovery.port_of("", [])
    boot = discovery.discover("ppk2", [usb("/dev/ttyACM0", "1-2:1.0", product=0x521F)])
    with pytest.raises(NotFoundError, match="1915:521F"):
        discovery.port_of("", boot)
    monkeypatch.setattr("joulemeter.ports.os.access", lambda *_: False)
    (locked,) = discovery.discover("ppk2", [usb("/dev/ttyACM0", "1-2:1.1")])
    assert locked.problem is not None
    assert "permission" in locked.problem


def test_table_has_every_code_of_every_range_once() -> None:
    table_a = wire.Calibration(constants=CONSTANTS).current_table_a(3.0).reshape(5, -1)
    assert (np.diff(table_a, axis=1) > 0).all()
