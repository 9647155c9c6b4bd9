"""The instruments that say by *IDN? that a profile fits them."""

from __future__ import annotations

from joulemeter.instrument import Found
from joulemeter.transport import visa

from . import profile

# USB numbers of the makers: Keysight, Rigol, Siglent, Rohde & Schwarz, Keithley.
VENDORS = (0x2A8D, 0x0957, 0x1AB1, 0xF4EC, 0x0AAD, 0x05E6)


def discover(key: str) -> list[Found]:
    known = [loaded.profile for loaded in profile.shipped().values()]
    return visa.discover(key, lambda identity: any(one.fits(identity) for one in known), VENDORS)
