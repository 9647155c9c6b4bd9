"""Links: how bytes reach an instrument. One narrow seam, so that a simulator can stand on the other side of it."""

from __future__ import annotations

from typing import Protocol


class UnpluggedError(Exception):
    """Raised by a simulated device that has been pulled out."""


class Link(Protocol):
    """`address` is what the user would type to reach it again."""

    @property
    def address(self) -> str: ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at once if anything has; b"" after the timeout. Raises IncompleteError when unplugged."""
        ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """May be called twice and after a failure."""
        ...
