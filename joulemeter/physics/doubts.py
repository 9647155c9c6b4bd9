"""What the recording and its windows give reason to doubt, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from joulemeter.capture import UNSEEN, Basis, Quantity, Recording, Stream
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.physics.align import Alignment
from joulemeter.result import Sync
from joulemeter.units import show_duration
from joulemeter.window import Window, WindowEnergy

# EEMBC and MLCommons require windows of at least this length (their runners print an error below it).
MLPERF_MIN_WINDOW_S = 10.0
# A host stamp may move an edge; beyond this share of the window the energy is in doubt.
HOST_EDGE_SHARE = 0.01


def about_stream(
    stream: Stream, windows: Sequence[WindowEnergy], kept: Sequence[WindowEnergy], alignment: Alignment
) -> list[Caveat]:
    header, rate_hz = stream.header, stream.timebase.rate_hz
    caveats = list(header.caveats)
    holes = [gap for gap in stream.gaps if gap.cause != UNSEEN]
    lost = sum(gap.lost for gap in holes)
    end_ns = stream.timebase.time_ns(stream.length)
    hit = sum(1 for window in windows if window.missing_s and 0 <= window.window.start_ns < end_ns)
    if lost:
        caveats.append(
            doubt(
                Code.LOST_SAMPLES,
                f"{lost} samples ({show_duration(lost / rate_hz)}) were lost in {len(holes)} hole(s); {hit} "
                "window(s) are touched and were left out. The others are not affected. Use a direct USB port, and "
                "close what loads the host.",
                lost=lost,
                holes=len(holes),
                windows=hit,
            )
        )
    unsure = [gap for gap in stream.gaps if gap.doubt]
    if unsure:
        caveats.append(
            doubt(
                Code.GAP_LENGTH_UNCERTAIN,
                f"The length of {len(unsure)} hole(s) is known only to a multiple of the sample counter; times "
                f"after it may be off by {show_duration(sum(gap.doubt for gap in unsure) / rate_hz)}. Energies are "
                "not affected.",
            )
        )
    reset = [window for window in windows if Code.COUNTER_RESET in window.caveats]
    if reset:
        caveats.append(
            doubt(
                Code.COUNTER_RESET,
                f"The meter's counter started over, or turned over an unknown number of times, in {len(reset)} "
                "window(s); they were left out. Read the counter more often, and leave it alone while measuring.",
                windows=len(reset),
            )
        )
    invalid = sum(window.invalid_samples for window in windows)
    if invalid:
        why = header.parameters.get("invalid", "the meter marks them so")
        caveats.append(
            doubt(
                Code.INVALID_SAMPLES,
                f"{invalid} readings inside the windows are no measurement: {why}. Windows with such readings were "
                "left out. The others are not affected.",
                samples=invalid,
            )
        )
    clipped = sum(window.clipped_samples for window in kept)
    if clipped:
        caveats.append(
            doubt(
                Code.CLIPPED,
                f"{clipped} samples inside the windows are at the end of the meter's range: energy is at least what "
                "is stated. Use a meter with a larger range.",
                samples=clipped,
            )
        )
    altered = sum(window.altered_samples for window in kept)
    if altered:
        share = altered / max(sum(window.samples for window in kept), 1.0)
        caveats.append(
            note(
                Code.ALTERED_SAMPLES,
                f"{altered} samples inside the windows ({share:.2%}) follow a range switch and were replaced by the "
                "meter's usual filter. What it may hide is in the budget as 'range switch'.",
                samples=altered,
            )
        )
    channel = header.channel(Quantity.POWER) or header.channel(Quantity.CURRENT)
    if channel is not None and not channel.accuracy:
        caveats.append(
            note(
                Code.ACCURACY_UNVERIFIED,
                f"The accuracy of {header.model} is not known here, so the uncertainty holds the scatter only and no "
                "total is given.",
            )
        )
    elif channel is not None and not all(row.verified for row in channel.accuracy):
        caveats.append(
            note(
                Code.ACCURACY_UNVERIFIED,
                f"Part of the accuracy table of {header.model} was not checked against its maker's document.",
            )
        )
    if header.voltage is not None and header.voltage.basis in (Basis.SET, Basis.DECLARED):
        code = Code.VOLTAGE_SET if header.voltage.basis is Basis.SET else Code.VOLTAGE_DECLARED
        caveats.append(
            note(
                code,
                f"Voltage was not measured but {header.voltage.basis} ({header.voltage.volts:g} V); every joule rests "
                "on it, and the budget holds its limit.",
            )
        )
    few = [window for window in kept if Code.FEW_SAMPLES in window.caveats]
    if few:
        caveats.append(
            doubt(
                Code.FEW_SAMPLES,
                f"{len(few)} window(s) are shorter than five samples of this meter; their edges decide their energy. "
                "Put more inferences into each window.",
                windows=len(few),
            )
        )
    caveats += _edge_caveats(kept, alignment.sync)
    caveats += _short_windows(windows, alignment.sync)
    return caveats


def _short_windows(windows: Sequence[WindowEnergy], sync: Sync) -> list[Caveat]:
    """EEMBC and MLCommons call windows of less than ten seconds invalid; their runners publish them all the same."""
    if sync.trigger is None or not (sync.trigger.startswith("events") or sync.trigger.endswith("falling-pairs")):
        return []
    short = [window.window.index for window in windows if window.window.duration_s < MLPERF_MIN_WINDOW_S]
    if not short:
        return []
    return [
        doubt(
            Code.SHORT_WINDOW,
            f"{len(short)} window(s) are shorter than the {MLPERF_MIN_WINDOW_S:g} s that MLPerf Tiny demands. Their "
            "edges weigh more; such a run is not valid for submission. Use more inferences per window.",
            windows=short,
        )
    ]


def about_edge(recording: Recording, alignment: Alignment) -> list[Caveat]:
    """What the edges that this host toggled add to each window, from the line's pulses beside the host's stamps."""
    if not recording.meta.get("edge") or alignment.sync.grade != "in-band":
        return []
    begins, ends = (
        [event.monotonic_ns for event in recording.events if event.source == "host" and event.label == label]
        for label in ("begin", "end")
    )
    stamped_s = [(end - begin) * 1e-9 for begin, end in zip(begins, ends, strict=False) if begin and end]
    if not stamped_s:
        return []
    pulse_s = float(np.median([window.duration_s for window in alignment.windows]))
    added_s = pulse_s - float(np.median(stamped_s))
    share = added_s / pulse_s
    say = doubt if share > HOST_EDGE_SHARE else note
    return [
        say(
            Code.EDGE_COST,
            f"The line that marks the windows is toggled by this host: its pulses are {show_duration(added_s)} "
            f"({share:.2%}) longer than the inference, and the energy holds what is drawn meanwhile. More inferences "
            "per window make the share smaller.",
            added_s=added_s,
            share=share,
        )
    ]


def _edge_caveats(kept: Sequence[WindowEnergy], sync: Sync) -> list[Caveat]:
    shortest_s = min(window.window.duration_s for window in kept)
    if sync.grade != "host-marker" or not sync.residual_s or sync.residual_s < HOST_EDGE_SHARE * shortest_s:
        return []
    return [
        doubt(
            Code.HOST_CLOCK_ONLY,
            f"Windows were placed by the host's clock to {show_duration(sync.residual_s)}, which is "
            f"{sync.residual_s / shortest_s:.0%} of the shortest window. Put more inferences into each window, or give "
            "the meter a trigger line.",
        )
    ]


def about_timing(windows: Sequence[Window]) -> list[Caveat]:
    """Stamps that are not good enough for the windows between them, where nothing but time is measured."""
    u_s, shortest_s = max(window.u_edge_s for window in windows), min(window.duration_s for window in windows)
    if u_s < HOST_EDGE_SHARE * shortest_s:
        return []
    return [
        doubt(
            Code.HOST_CLOCK_ONLY,
            f"Begin and end of a window were stamped to {show_duration(u_s)}, which is {u_s / shortest_s:.0%} of the "
            "shortest one; what a serial line adds on the way is part of its time. Put more inferences into each "
            "window, or give a meter a trigger line.",
        )
    ]


def about_count(count: int) -> list[Caveat]:
    if count == 1:
        return [
            doubt(
                Code.SINGLE_WINDOW,
                "One window has no scatter: how far the next one would differ is unknown. Repeat with --windows.",
            )
        ]
    if count < 6:
        return [
            note(
                Code.FEW_WINDOWS,
                f"{count} windows are too few for an interval of the median; it is Student's t about the mean.",
            )
        ]
    return []
