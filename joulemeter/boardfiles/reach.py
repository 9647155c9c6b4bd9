"""From what the user typed to a link with an agent behind it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from joulemeter.errors import UsageError
from joulemeter.transport import Link
from joulemeter.transport.connect import connect
from joulemeter.transport.process import ProcessLink
from joulemeter.workload import agent, ssh

SSH = "ssh://"


class BoardLink:
    """The agent on a board, reached by ssh."""

    def __init__(self, board: ssh.Board) -> None:
        """Raises what `ssh.Board.open` does."""
        self.address = f"{SSH}{board.address}"
        self._board = board
        board.open()

    def compare(self) -> dict[str, Any]:
        """The board's clock against ours; see TwoWayClock.describe. Raises DataError, IncompleteError."""
        self._board.exchange()
        return self._board.clock.describe()

    def read(self, timeout_s: float) -> bytes:
        return self._board.read(timeout_s)

    def write(self, data: bytes) -> None:
        self._board.write(data)

    def close(self) -> None:
        self._board.close()


def local(address: str) -> bool:
    """Whether it is "" or the name of something on this host: ports have a slash or a colon."""
    return "/" not in address and ":" not in address


def reach(address: str, settings: Mapping[str, str]) -> Link:
    """The agent of this host, of a board at ssh://[user@]host[:port], or whatever speaks its protocol at a port.

    Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError.
    """
    if local(address):
        return ProcessLink([sys.executable, "-I", "-u", agent.__file__], address)
    if not address.startswith(SSH):
        return connect(address)
    at = ssh.parse_address(address)
    if at.path:
        raise UsageError(f"{address} names a file or folder.", "Write ssh://[user@]host[:port].")
    return BoardLink(ssh.Board(at, python=settings["python"], config=settings["ssh"] or None))
