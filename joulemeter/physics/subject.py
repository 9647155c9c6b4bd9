"""What was measured, and whether any of it was real."""

from __future__ import annotations

from typing import Any

from joulemeter.capture import Basis, Recording


def about(recording: Recording) -> dict[str, Any]:
    """The fields of a Result that say what it is of."""
    meta = recording.meta
    return {
        "name": recording.name,
        "created": str(meta.get("created") or ""),
        "device": meta.get("device"),
        "workload": workload(recording),
        "provenance": meta.get("provenance") or {},
    }


def workload(recording: Recording) -> dict[str, Any] | None:
    """What was known of it before the recording, and what was learnt while it ran."""
    learnt = [event.data for event in recording.events if event.source == "workload"]
    edge = recording.meta.get("edge")
    before = recording.meta.get("workload")
    return {**(before or {}), **(learnt[-1] if learnt else {}), **({"edge": edge} if edge else {})} or before


def simulated(recording: Recording) -> bool:
    """Whether any simulator took part: a meter, or the board."""
    meters = any(stream.header.simulated for stream in recording.streams)
    return meters or bool(recording.meta.get("simulated")) or simulated_board(recording)


def simulated_board(recording: Recording) -> bool:
    """Asked for as one, or one that says so itself."""
    return bool(recording.meta.get("simulated_board") or (workload(recording) or {}).get("simulated"))


def host_time_basis(recording: Recording) -> Basis:
    """Of what this host stamped: the time of a simulated board is simulated, too."""
    return Basis.SIMULATED if simulated_board(recording) else Basis.MEASURED
