"""Which of these meters are plugged in, and the link to one."""

from __future__ import annotations

from joulemeter import ports
from joulemeter.instrument import Found, UsbId
from joulemeter.transport import Link, usb
from joulemeter.transport.connect import connect

from . import wire

KEY = "powerz"
IDS = tuple(UsbId(vendor=wire.VENDOR, product=product) for product in wire.MODELS)
NAMES = {known: f"POWER-Z {wire.MODELS[known.product]}" for known in IDS}
CONNECT = "Connect the port of it that is meant for a computer, or give its address."


def discover() -> list[Found]:
    return usb.discover(KEY, IDS, NAMES)


def reach(address: str) -> tuple[Link, str | None]:
    """The link to the meter meant, and its model where the USB id tells it. Raises what opening a link may."""
    chosen = None
    if not address.startswith(usb.PREFIX):
        chosen = ports.choose(address, discover(), "POWER-Z", CONNECT)
        if chosen is None:
            return connect(address), None
    link = usb.UsbLink(
        chosen.address if chosen else address,
        IDS,
        interface=wire.INTERFACE,
        endpoint_out=wire.ENDPOINT_OUT,
        endpoint_in=wire.ENDPOINT_IN,
    )
    return link, wire.MODELS[link.usb.product]
