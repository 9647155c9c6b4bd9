"""Calibrations, kept by instrument and serial number.

    DATA/calibrations/KEY/SERIAL/2026-11-20T20-41-26Z.json      one file per calibration; none is ever rewritten

DATA is $JOULEMETER_DATA, else $XDG_DATA_HOME/joulemeter, else ~/.local/share/joulemeter.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from joulemeter import store
from joulemeter.capture import Header
from joulemeter.errors import AccessError, DataError
from joulemeter.physics.calibration import SCHEMA, Calibration


def folder() -> Path:
    """Where calibrations are kept; it need not exist."""
    if own := os.environ.get("JOULEMETER_DATA"):
        return Path(own) / "calibrations"
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "joulemeter" / "calibrations"


def _home(instrument: str, serial: str) -> Path:
    return folder() / instrument / (re.sub(r"[^A-Za-z0-9._-]+", "-", serial).strip("-.") or "unnamed")


def save(calibration: Calibration) -> Path:
    """Write a new file. Raises AccessError."""
    home = _home(calibration.instrument, calibration.serial)
    stamp = calibration.created[:19].replace(":", "-")
    try:
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{stamp}Z.json"
        attempt = 2
        while path.exists():
            path, attempt = home / f"{stamp}Z-{attempt}.json", attempt + 1
        store.write_json(path, calibration)
    except OSError as error:
        raise AccessError(
            f"{home} cannot be written ({error.strerror or error}).", "Choose another place with JOULEMETER_DATA."
        ) from error
    return path


def load(path: Path) -> Calibration:
    """Raises DataError for a damaged file, AccessError for one that cannot be read."""
    import msgspec

    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise AccessError(f"{path} cannot be read ({error.strerror or error}).") from error
    except msgspec.DecodeError as error:
        raise DataError(f"The calibration {path} is damaged: {error}.", "Remove it, and calibrate again.") from error
    if calibration.schema != SCHEMA:
        raise DataError(f"{path} holds {calibration.schema!r}, not {SCHEMA!r}.", "Calibrate again.")
    return calibration


def kept(instrument: str, serial: str) -> list[Path]:
    """Files of this meter's calibrations, the newest last."""
    return sorted(_home(instrument, serial).glob("*.json"), key=_order)


def _order(path: Path) -> tuple[str, int]:
    stamp, _, attempt = path.stem.partition("Z")
    return stamp, int(attempt[1:] or 1) if attempt[1:].isdigit() or not attempt else 1


def newest(instrument: str, serial: str, *, simulated: bool) -> Calibration | None:
    """The last calibration of a real or of a simulated meter of that name."""
    for path in reversed(kept(instrument, serial)):
        calibration = load(path)
        if (calibration.simulated, calibration.serial) == (simulated, serial):
            return calibration
    return None


def find(header: Header, name: str | None = None) -> Calibration | None:
    """The last calibration of the meter that wrote this header, by its serial number; else by the name it was given.

    A meter without a number is never matched to a calibration that nobody named.
    """
    serial = header.serial or name
    return None if serial is None else newest(header.instrument, serial, simulated=header.simulated)


def digest(calibration: Calibration) -> str:
    """SHA-256 of everything in it, for the provenance of a result."""
    import msgspec

    return hashlib.sha256(msgspec.json.encode(calibration, order="sorted")).hexdigest()
