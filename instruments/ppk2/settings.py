"""What the user may choose; the first value of each row is the default."""

from __future__ import annotations

from joulemeter.errors import UsageError
from joulemeter.instrument import Options

SETTINGS = {
    "filter": ("nordic", "raw"),  # replace the three samples after a range switch as the maker's software does, or not
    "noise": ("on", "off"),  # of the simulator
}


def chosen(options: Options) -> dict[str, str]:
    """Every setting with its value. Raises UsageError for a name or a value that is not in the table."""
    for name, value in options.settings.items():
        if name not in SETTINGS:
            raise UsageError(f"The PPK2 has no setting {name!r}.", f"Its settings: {', '.join(SETTINGS)}.")
        if value not in SETTINGS[name]:
            raise UsageError(f"{name} cannot be {value!r}.", f"Choose one of: {', '.join(SETTINGS[name])}.")
    return {name: values[0] for name, values in SETTINGS.items()} | dict(options.settings)
