"""What tests of meters that a board is itself share: trees of files, and streams of simulated boards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from joulemeter.boardfiles import wire
from joulemeter.boardfiles.driver import FilesDriver
from joulemeter.capture import ArrayStream, Block, Gap, Header, Timebase
from joulemeter.errors import IncompleteError
from joulemeter.instrument import Device, InstrumentModule, Options
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.workload import agent


def plant(root: Path, tree: Mapping[str, str | int]) -> Path:
    """Files of a tree below `root`, which is what `--set root=` takes."""
    for path, content in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def survey(root: Path, patterns: Sequence[str]) -> wire.Files:
    """What an agent on that board would tell."""
    return wire.parse_files(agent.files([f"{root}/{pattern}" for pattern in patterns]))


def loopback(device: Device, faults: str = "") -> LoopbackLink:
    return LoopbackLink(FaultyDevice(device, parse_faults(faults)))


def settings(module: InstrumentModule, **changed: str) -> dict[str, str]:
    return module.INFO.chosen(Options(settings=changed))


def recorded(meter: FilesDriver, module: InstrumentModule, seconds: float) -> tuple[Header, list[Block]]:
    """Header and blocks of so many seconds of the board's time. The load begins one interval before stream time 0."""
    header = meter.start()
    raw = b""
    while len(raw) < seconds * header.rate_hz * header.word_bytes:
        raw += meter.read(0.1)
    decoder = module.decoder(header)
    return header, decoder.feed(raw) + decoder.finish()


def stream_of(header: Header, blocks: Sequence[Block]) -> ArrayStream:
    times = [block.times_ns for block in blocks if block.times_ns is not None]
    status = [np.zeros(len(block), np.uint8) if block.status is None else block.status for block in blocks]
    return ArrayStream(
        name=header.instrument,
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={name: np.concatenate([block.data[name] for block in blocks]) for name in blocks[0].data},
        times_ns=np.concatenate(times),
        status=np.concatenate(status),
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
    )


def until_it_ends(meter: FilesDriver, rounds: int = 40) -> tuple[bytes, bool]:
    """What comes in so many reads, and whether the board went away."""
    raw = b""
    for _ in range(rounds):
        try:
            raw += meter.read(0.1)
        except IncompleteError:
            return raw, True
    return raw, False


def lines(header: Header, rounds: Mapping[int, Sequence[str]]) -> Iterator[bytes]:
    """Rounds by hand, as the agent sends them: what each source holds by slot, read in 20 us each."""
    first_ns, interval_ns = header.parameters["first_ns"], header.parameters["interval_ns"]
    for slot, texts in rounds.items():
        at_ns = first_ns + slot * interval_ns + 50_000
        entries = [f'[{at_ns + 20_000 * k},{at_ns + 20_000 * (k + 1)},"{text}",null]' for k, text in enumerate(texts)]
        yield f'{{"poll":[{slot},[{",".join(entries)}],{slot}]}}'.encode().ljust(header.word_bytes - 1) + b"\n"


def slower(header: Header, interval_s: float) -> Header:
    """The same, polled at another pace."""
    parameters = header.parameters | {"interval_ns": round(interval_s * 1e9)}
    return replace(header, rate_hz=1 / interval_s, parameters=parameters)
