"""What a reader of a foreign recording is: a module with an entry point in the group `joulemeter.readers`.

    INFO                  what it reads, as data
    recognises(path)      whether this file or folder is its own; looks at content, never at the name alone
    read(path)            the Recording; raises UsageError for a file it cannot use and DataError for a damaged one

A reader does not judge: it gives the samples with their kind, the stamps as events, and caveats for what it repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joulemeter.capture import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderInfo:
    key: str
    summary: str
    made_by: str


class ReaderModule(Protocol):
    INFO: ReaderInfo

    def recognises(self, path: Path) -> bool: ...
    def read(self, path: Path) -> Recording: ...
