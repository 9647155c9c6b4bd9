"""Which Otiis the app on this host has, and which one the user meant.

An address is [HOST:PORT][/DEVICE]: the app, and the id or name of one of its devices.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from joulemeter.errors import JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Found
from joulemeter.transport.tcp import TcpLink

from . import channels, wire
from .connection import Connection, NoAnswer, Refused, ask

# A port of this host is open or it is not, and an app greets at once.
LOOK_S = 0.3


def split(address: str) -> tuple[str, str]:
    """The app's address and the device's name, "" for the only one."""
    server, _, device = address.removeprefix("tcp://").partition("/")
    return (server, device) if ":" in server else (wire.SERVER, address)


def discover(key: str, server: str = wire.SERVER) -> list[Found]:
    """Every device of the app at `server`; where it does not show them without a licence, the app itself."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=LOOK_S).close()
        connection = Connection(TcpLink(server), LOOK_S)
    except (OSError, JouleMeterError):
        return []
    try:
        connection.limit_s = 1.0
        listed = ask(connection, "otii_get_devices", timeout=0)["devices"]
        known = [device for device in listed if device["type"] in channels.MODELS]
        return [
            Found(
                key=key,
                address=f"{server}/{device['device_id']}",
                description=f"Otii {device['type']} {device['name']!r}",
                serial=device["device_id"],
            )
            for device in known
        ]
    except (Refused, NoAnswer, JouleMeterError, KeyError, TypeError):
        version = connection.greeting.version
        return [Found(key=key, address=server, description=f"Otii app {version}, which shows its devices to a licence")]
    finally:
        connection.close_connection()


def choose(devices: Sequence[Any], wanted: str, server: str) -> Any:
    """Of the client's devices the one with that id or name, the only one for "". Raises NotFoundError, UsageError."""
    there = ", ".join(f"{device.name} ({device.type}, {device.id})" for device in devices)
    fitting = [device for device in devices if wanted in ("", device.id, device.name)]
    if len(fitting) == 1:
        return fitting[0]
    if not devices:
        raise NotFoundError(
            f"The Otii app at {server} has no Arc or Ace.", "Connect one by USB to the app's host, and see it there."
        )
    if not fitting:
        raise NotFoundError(f"The Otii app at {server} has no device {wanted!r}.", f"It has {there}.")
    raise UsageError(f"{len(fitting)} devices may be meant.", f"Write otii@{server}/ID. There are {there}.")
