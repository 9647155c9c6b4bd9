"""The reference networks on this host: time of one inference, as Markdown tables beside the published figures.

    python results/measured/reference_networks.py [PYTHON...] > results/measured/reference_networks.md

Each further PYTHON is the interpreter of an environment with another runtime, such as tflite-runtime, which needs
numpy < 2; of JouleMeter it needs msgspec only. Only `invoke` is timed, by JouleMeter's own workload.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from joulemeter.workload import cpu_governor, cpu_model, tflite

ROOT = Path(__file__).parents[2]
NETWORKS = ("dense1", "conv3dense1", "mobilenet-cifar10")
PRECISIONS = ("float32", "float16", "int8")
BATCHES = (1, 32)
INVOKES = 10_000
WARM_UP_S = 0.5
LIMIT_S = 120.0
THREADS = 1

SOURCE = "R. Zingg, B. Zimmermann: Benchmarking the Intelligent Edge, ZHAW Institute of Embedded Systems, 2019"
# Network, hardware, runtime, type, microseconds of one sample in a batch of 1 and of 32.
PUBLISHED = (
    ("dense1", "STM32F4DISCOVERY", "TFLite Micro", "int8", "1,120", "-"),
    ("dense1", "STM32F4DISCOVERY", "ST Cube.AI", "float16", "3,950", "-"),
    ("dense1", "STM32F4DISCOVERY", "nnom + CMSIS-NN", "int8", "207", "-"),
    ("dense1", "Jetson Nano", "TFLite", "float32", "32", "10"),
    ("dense1", "Jetson TX2", "TFLite", "float32", "16", "7"),
    ("dense1", "Jetson Xavier", "TFLite", "float32", "10", "4"),
    ("dense1", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float32", "6", "4"),
    ("dense1", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float16", "5", "1"),
    ("dense1", "Quadro K620, Xeon E3-1270 v5", "Keras", "float32", "13,909", "430"),
    ("conv3dense1", "STM32F4DISCOVERY", "TFLite Micro", "int8", "331,600", "-"),
    ("conv3dense1", "STM32F4DISCOVERY", "ST Cube.AI", "float16", "300,340", "-"),
    ("conv3dense1", "STM32F4DISCOVERY", "nnom + CMSIS-NN", "int8", "104,600", "-"),
    ("conv3dense1", "Jetson Nano", "TFLite", "float32", "564", "535"),
    ("conv3dense1", "Jetson TX2", "TFLite", "float32", "404", "388"),
    ("conv3dense1", "Jetson Xavier", "TFLite", "float32", "260", "259"),
    ("conv3dense1", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float32", "182", "184"),
    ("conv3dense1", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float16", "80", "30"),
    ("mobilenet-cifar10", "Jetson Nano", "TFLite", "float32", "4,916", "4,453"),
    ("mobilenet-cifar10", "Jetson TX2", "TFLite", "float32", "3,600", "3,210"),
    ("mobilenet-cifar10", "Jetson Xavier", "TFLite", "float32", "2,205", "2,079"),
    ("mobilenet-cifar10", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float32", "1,200", "1,210"),
    ("mobilenet-cifar10", "Quadro K620, Xeon E3-1270 v5", "TFLite", "float16", "1,100", "314"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Microseconds of one sample: `median_us` and `p99_us` are those of the whole invoke, divided by the batch."""

    network: str
    precision: str
    runtime: str
    delegate: str | None
    size: int
    batch: int
    invokes: int
    median_us: float
    p99_us: float


def measure(network: str, precision: str, batch: int) -> Row:
    path = ROOT / "profiles" / "models" / f"{network}-{precision}.tflite"
    workload = tflite.create(str(path), {"batch": str(batch), "threads": str(THREADS)})
    workload.prepare()
    tried = 5
    while True:
        stamps = workload.run(tried)
        taken_s = float(stamps.end_ns[-1] - stamps.begin_ns[0]) * 1e-9
        if taken_s > WARM_UP_S:
            break
        tried *= 4
    invokes = min(INVOKES, round(LIMIT_S / taken_s * tried))
    stamps = workload.run(invokes)
    sample_us = (stamps.end_ns - stamps.begin_ns) * 1e-3 / batch
    about = workload.describe()
    workload.close()
    return Row(
        network=network,
        precision=precision,
        runtime=f"{about['runtime']} {about['version']}",
        delegate=about["delegate"],
        size=path.stat().st_size,
        batch=batch,
        invokes=invokes,
        median_us=float(np.median(sample_us)),
        p99_us=float(np.percentile(sample_us, 99)),
    )


def here() -> Iterator[Row]:
    for network in NETWORKS:
        for precision in PRECISIONS:
            for batch in BATCHES:
                row = measure(network, precision, batch)
                sys.stderr.write(f"{row.runtime}: {network} {precision}, batch {batch}: {row.median_us:.2f} us\n")
                yield row


def elsewhere(python: str) -> Iterator[Row]:
    # That environment does not have JouleMeter installed.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, __file__, "--json"], stdout=subprocess.PIPE, check=True, text=True, env=environment)
    for row in json.loads(done.stdout):
        yield Row(**row)


def us(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def main() -> None:
    if sys.argv[1:] == ["--json"]:
        json.dump([asdict(row) for row in here()], sys.stdout)
        return
    load = os.getloadavg()[0]
    rows = [*here(), *(row for python in sys.argv[1:] for row in elsewhere(python))]
    rows.sort(key=lambda row: (NETWORKS.index(row.network), PRECISIONS.index(row.precision), row.runtime))
    fewer = [row.invokes for row in rows if row.invokes < INVOKES]
    about = (
        f"Made by `python results/measured/reference_networks.py`. Microseconds of one sample: median and 99th "
        f"percentile of {INVOKES:,} invokes, those of a batch of 32 divided by 32; {THREADS} thread, seeded inputs, "
        f"`invoke` alone. {os.cpu_count()} cores of {cpu_model()}, governor {cpu_governor() or 'unknown'}, "
        f"{platform.system()} {platform.release()}, load average {load:.1f} before."
    )
    if fewer:
        about += f" Rows with fewer invokes, as the column says, would have taken more than {LIMIT_S:.0f} s."
    paragraphs = [
        "# The reference networks on this host",
        about,
        "\n".join(
            [
                "| network | type | bytes | runtime | delegate | batch | invokes | median, us | p99, us |",
                "|---|---|---|---|---|---|---|---|---|",
                *(
                    f"| {row.network} | {row.precision} | {row.size:,} | {row.runtime} | {row.delegate or 'unknown'} | "
                    f"{row.batch} | {row.invokes:,} | {us(row.median_us)} | {us(row.p99_us)} |"
                    for row in rows
                ),
            ]
        ),
        "## Published, on other hardware",
        f"{SOURCE}: median of 10,000, microseconds of one sample. Not measured here, and not by JouleMeter.",
        "\n".join(
            [
                "| network | hardware | runtime | type | batch 1, us | batch 32, us |",
                "|---|---|---|---|---|---|",
                *(f"| {' | '.join(row)} |" for row in PUBLISHED),
            ]
        ),
    ]
    wrapped = [text if text.startswith("|") else textwrap.fill(text, 120) for text in paragraphs]
    sys.stdout.write("\n\n".join(wrapped) + "\n")


if __name__ == "__main__":
    main()
