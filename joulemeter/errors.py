"""Errors that a person reads.

    JouleMeterError
    ├── UsageError            exit 2   an option, a profile or a file that cannot be used as asked
    ├── NotFoundError         exit 3   no such meter, port or device, or what is there is something else
    ├── AccessError           exit 4   busy, or no permission
    ├── DataError             exit 5   lost or corrupt data, or nothing was measured
    ├── IncompleteError       exit 6   interrupted; what was recorded is kept
    └── MissingExtraError     exit 7   an optional package is needed

Each says what happened, to what, and what to do next. A rule that failed (`check`) is a result, not an error: exit 1.
"""

from __future__ import annotations

from typing import Self

# What a remedy says of an unfinished recording while its place is not known.
KEPT = "What was recorded until then is kept."


class JouleMeterError(Exception):
    """What happened and to what, then the remedy as a sentence of its own."""

    exit_code = 2

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def kept_in(self, place: object) -> Self:
        """Itself, saying also where the recording is."""
        self.remedy = f"{self.remedy.replace(KEPT, '').strip()} The recording is kept in {place}.".strip()
        self.args = (self.what, self.remedy)
        return self

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class UsageError(JouleMeterError):
    exit_code = 2


class NotFoundError(JouleMeterError):
    exit_code = 3


class AccessError(JouleMeterError):
    exit_code = 4


class DataError(JouleMeterError):
    exit_code = 5


class IncompleteError(JouleMeterError):
    exit_code = 6


class MissingError(JouleMeterError):
    exit_code = 7


class MissingExtraError(MissingError):
    """`package` is what pip is to be given, such as joulemeter[hid]."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(what, f"Install it: pip install '{package}'.")


BY_EXIT_CODE: dict[int, type[JouleMeterError]] = {
    2: UsageError,
    3: NotFoundError,
    4: AccessError,
    5: DataError,
    6: IncompleteError,
    7: MissingError,
}
