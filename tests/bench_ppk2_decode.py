"""Speed of PPK2 decoding against ppk2-api 0.9.2, on the same bytes, in one run: `python tests/bench_ppk2_decode.py`."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ppk2_streams import TRANSCRIPT, header, typical

from joulemeter.instruments.ppk2 import decode

WITNESS = Path(__file__).with_name("ppk2_witness.py")
CHUNKS = (1024, 4096, 65536)
THEIR_SAMPLES = 200_000


def our_seconds(raw: bytes, kernel: str, chunk: int, repeats: int) -> float:
    """Median time for all of `raw`, fed in chunks of so many samples."""
    taken = []
    for _ in range(repeats + 1):
        decoder = decode.Ppk2Decoder(header(), kernel)
        pieces = [raw[at : at + 4 * chunk] for at in range(0, len(raw), 4 * chunk)]
        start = time.perf_counter()
        for piece in pieces:
            decoder.feed(piece)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])  # the first one compiles


def their_seconds(raw: bytes, chunks: tuple[int, ...]) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "meta"), Path(folder, "raw")
        files[0].write_bytes(TRANSCRIPT)
        files[1].write_bytes(raw)
        command = [
            sys.executable,
            str(WITNESS),
            "time",
            *map(str, files),
            "3000",
            *(str(4 * chunk) for chunk in chunks),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return {int(chunk) // 4: seconds for chunk, seconds in json.loads(done.stdout).items()}


def ratios(
    kernels: list[str], chunks: tuple[int, ...], samples: int, repeats: int
) -> dict[tuple[str, int], tuple[float, float, float]]:
    """Samples per second of ours and of theirs, and the ratio, for each kernel and chunk size."""
    raw = typical(samples)
    theirs = their_seconds(raw[: 4 * THEIR_SAMPLES], chunks)
    rows = {}
    for kernel in kernels:
        for chunk in chunks:
            ours_per_s = samples / our_seconds(raw, kernel, chunk, repeats)
            theirs_per_s = min(samples, THEIR_SAMPLES) / theirs[chunk]
            rows[kernel, chunk] = ours_per_s, theirs_per_s, ours_per_s / theirs_per_s
    return rows


def main() -> None:
    kernels = ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]
    print("# PPK2 decoding against ppk2-api 0.9.2, one run\n")
    print("Millions of samples per second, medians; both give the same bits. Read the ratio, not the rates.\n")
    print("| kernel | samples per chunk | ours | ppk2-api | ratio |\n|---|---|---|---|---|")
    for (kernel, chunk), (ours, theirs, ratio) in ratios(kernels, CHUNKS, 2_000_000, 7).items():
        print(f"| {kernel} | {chunk} | {ours / 1e6:.1f} | {theirs / 1e6:.2f} | {ratio:.0f} |")


if __name__ == "__main__":
    main()
