"""What the readers of this folder share: getting at a file, and marking samples that are no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Status
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.errors import AccessError, DataError, UsageError


def content(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes of a file, or all. Raises UsageError where it is missing, AccessError where unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} does not exist.", "Give the folder of the energy run.") from error
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error


def marked(path: Path, values: NDArray[np.float64]) -> tuple[NDArray[np.uint8] | None, list[Caveat]]:
    """Status of each of (n,) `values` and what to say about it; non-finite ones become NaN in place, and INVALID.

    Raises DataError where not one is a number.
    """
    good = np.isfinite(values)
    if good.all():
        return None, []
    if not good.any():
        raise DataError(f"Not one of the {len(values)} samples in {path} is a number.", "Record the run again.")
    values[~good] = np.nan
    bad = len(values) - int(good.sum())
    caveat = doubt(
        Code.INVALID_SAMPLES,
        f"{bad} of {len(values)} samples in {path} are not numbers: the monitor or the link to it failed there. They "
        "are marked invalid, and the energy of windows that hold them lacks them. Record the run again if it matters.",
        samples=bad,
    )
    return np.where(good, Status.GOOD, Status.INVALID).astype(np.uint8), [caveat]
