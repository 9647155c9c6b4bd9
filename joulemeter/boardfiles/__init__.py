"""Meters that a board is itself: what its kernel and its firmware say, read again and again by the agent on it.

The agent that runs workloads there also polls files and commands, on this host, on a board over SSH, or behind a port.
An instrument says which of them there are, which make its channels and how wrong they may be (`driver.Plan`), and what
a round of readings is worth (`decode.RoundDecoder`).
"""

from __future__ import annotations

from joulemeter.instrument import Setting


def settings(interval: str, root: str = "/sys") -> dict[str, Setting]:
    """What all of them may be told; `interval` describes that one."""
    return {
        "interval": Setting(default="auto", summary=interval),
        "root": Setting(default=root, summary="where that file system is mounted"),
        "ssh": Setting(default="", summary="configuration file for ssh in place of ~/.ssh/config"),
        "python": Setting(default="python3", summary="the Python on the board"),
    }
