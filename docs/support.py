"""Prints docs/support.md: every reference system and every instrument, and how far each was verified.

    python docs/support.py > docs/support.md

Recipes and instruments are found. Typed here is only what no profile and no driver can know: which systems the
project's sources measured, and of which boards there are recordings by others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from joulemeter import profile, registry
from joulemeter.instrument import Info
from joulemeter.profile import Device, Rig

MEASURED = Path(__file__).parents[1] / "results" / "measured"
RECORDED = (MEASURED / "mlperf_tiny.md").read_text(encoding="utf-8")
SIMULATED = (MEASURED / "rigs.md").read_text(encoding="utf-8")

# What the project's sources measured or named, by the recipe that measures it. The sources: see SYSTEMS.
REFERENCE: dict[str, dict[str, str]] = {
    "Microcontrollers": {
        "stm32f4-tflite-micro": "STM32F4DISCOVERY, TFLite Micro",
        "stm32f4-cube-ai": "STM32F4DISCOVERY, ST Cube.AI",
        "stm32f4-nnom": "STM32F4DISCOVERY, nnom and CMSIS-NN",
        "stm32f4-oscilloscope": "STM32F4DISCOVERY, a LeCroy oscilloscope triggered by a pin",
        "stm32f4-uart": "STM32F4DISCOVERY, the prediction returned by a UART",
        "sparkfun-edge": "SparkFun Edge",
        "sparkfun-artemis": "SparkFun Artemis",
        "nrf52840": "Nordic nRF52840",
        "esp32": "ESP32",
        "openmv-cam-h7": "OpenMV Cam H7",
        "mlperf-tiny-l4r5zi": "MLPerf Tiny on its reference board, NUCLEO-L4R5ZI",
    },
    "Single-board computers": {
        "pi-3b-plus": "Raspberry Pi 3 B+, TensorFlow Lite",
        "pi-3b-plus-tensorflow": "Raspberry Pi 3 B+, TensorFlow",
        "pi-3b-plus-ai2go": "Raspberry Pi 3 B+, Xnor AI2GO (discontinued)",
        "pi-4b": "Raspberry Pi 4 B, TensorFlow Lite",
        "pi-4b-um25c": "Raspberry Pi 4 B, a USB inline meter",
        "pi-5": "Raspberry Pi 5, TensorFlow Lite",
        "pi-5-pmic": "Raspberry Pi 5, its own power chip",
    },
    "Accelerators": {
        "coral-usb-pi3": "Coral USB on a Raspberry Pi 3, USB 2",
        "coral-usb-pi4": "Coral USB on a Raspberry Pi 4, USB 3",
        "coral-usb-pi4-usb2": "Coral USB on a Raspberry Pi 4, USB 2",
        "coral-usb-notebook": "Coral USB on a notebook",
        "coral-dev-board": "Coral Dev Board",
        "ncs-pi3": "Intel Neural Compute Stick on a Raspberry Pi 3",
        "ncs2-pi3": "Intel Neural Compute Stick 2 on a Raspberry Pi 3",
        "jetson-nano": "Jetson Nano, TFLite",
        "jetson-nano-tensorrt": "Jetson Nano, TensorRT",
        "jetson-tx2": "Jetson TX2, TFLite",
        "jetson-tx2-tensorrt": "Jetson TX2, TensorRT",
        "jetson-agx-xavier": "Jetson AGX Xavier, TFLite",
        "jetson-agx-xavier-tensorrt": "Jetson AGX Xavier, TensorRT",
        "quadro-k620": "Quadro K620",
    },
}

# Device profile -> what its runs are called among the recordings that mlperf_tiny.md recomputes.
RECORDINGS = {
    "nucleo-l4r5zi": "l4r5zi",
    "nucleo-h7a3zi-q": "h7a3zi",
    "nucleo-u575zi-q": "u575zi",
    "gap9": "gap9",
    "ndp120": "syntiant_9120",
}

HEAD = """\
# What is supported, and how far it was verified

Made by `python docs/support.py` from profiles, drivers and results; a test holds it to them.

- **simulator**: `joulemeter measure --rig RECIPE --simulate` runs to the end, through the real driver and analysis, on
  a simulated meter and a simulated board that draws what the board's profile says, and the energy comes out within the
  stated uncertainty ([each of them](../results/measured/rigs.md)).
- **real recording**: others recorded this board, and JouleMeter computes their published figures from their recordings.
  It did not make them.
- **hardware**: somebody measured the real thing with JouleMeter. **Nobody has so far, on any system, with any
  instrument.** If you are the first, tell us what you found.

"""

SYSTEMS = """\
## The systems of the project's sources

What A. Allan ("Measuring Machine Learning", 2019), R. Zingg and B. Zimmermann ("Benchmarking the Intelligent Edge",
ZHAW, 2019), P. Warden's talks and articles on the Coral measured or named. None of them measured energy. Their figures
are in [results/published](../results/published/README.md).

The first meter is the recipe's own, the others take its place by `--meter`. Wiring:
`joulemeter profiles show rig RECIPE` and `joulemeter profiles show device NAME`.

"""

BENCHMARKS = """\
### Benchmarks

| what | command | verified |
|---|---|---|
| MLPerf Tiny, protocol and runner | `joulemeter measure --rig mlperf-tiny-l4r5zi` | simulator; the benchmark's own firmware on this host |
| MLPerf Tiny, recordings | `joulemeter analyze FOLDER --convention eembc` | real recording ([{runs} runs](../results/measured/mlperf_tiny.md)) |
| MLPerf Tiny, published table | `joulemeter compare RUN --published mlperf-tiny` | [data](../results/published/README.md), checked row by row |
| TFLite timing, batch 1 and 32 | `joulemeter measure --meter none --workload tflite:FILE` | a host's processor ([times](../results/measured/reference_networks.md)) |

"""  # noqa: E501 - rows of a table

MORE = """\
## More systems with a recipe

"""

INSTRUMENTS = """\
## Instruments

Extra: what `pip install 'joulemeter[EXTRA]'` adds. Each key leads to its notes: wiring, accuracy with its source, and
what is not known. A known load through each of them: [meters.md](../results/measured/meters.md).

- simulator only: the driver met our own simulator, which packs its bytes by other code than the driver's.
- bytes of others: the driver also reads what real instruments or other people's programs sent.
- a real unit: the note says which.

"""


def main() -> None:
    sys.stdout.write(HEAD + SYSTEMS)
    heads = ("system", "recipe", "meters", "trigger", "verified")
    for title, systems in REFERENCE.items():
        sys.stdout.write(f"### {title}\n\n" + table(heads, [row(rig, system) for rig, system in systems.items()]))
    sys.stdout.write(BENCHMARKS.format(runs=recorded("")))
    named = {rig for systems in REFERENCE.values() for rig in systems}
    rest = [name for name in profile.names("rig") if name not in named | {"demo"}]
    sys.stdout.write(MORE + table(heads, map(row, rest)))
    instruments = [instrument(key, module.INFO) for key, module in registry.instruments()]
    sys.stdout.write(
        INSTRUMENTS + table(("key", "models", "extra", "verified with", "how"), instruments).rstrip() + "\n"
    )


def row(name: str, system: str | None = None) -> tuple[str, ...]:
    rig = profile.load("rig", name)
    found = profile.find(Device, rig.device)
    return (
        system or found.profile.name,
        f"`{name}`",
        ", ".join(f"`{key}`" for key in meters(rig, found.profile)),
        f"`{rig.trigger}`",
        verified(name, Path(found.path).stem),
    )


def meters(rig: Rig, device: Device) -> list[str]:
    """The recipe's own first."""
    own = rig.meter.partition("@")[0]
    return list(dict.fromkeys([own, *device.instruments]))


def verified(name: str, device: str) -> str:
    degrees = ["simulator"] if simulated(name) else []
    if device in RECORDINGS:
        degrees.append(f"real recording ([{recorded(RECORDINGS[device])} runs](../results/measured/mlperf_tiny.md))")
    return ", ".join(degrees) or "no"


def simulated(name: str) -> bool:
    """Whether the recipe ran to the end, and the truth lay in its interval."""
    return any(line.startswith(f"| {name} |") and line.endswith("| yes |") for line in SIMULATED.splitlines())


def recorded(part: str) -> int:
    """How many recordings of a board are recomputed."""
    return sum(part in line.split("|")[1].lower() for line in RECORDED.splitlines() if line.startswith("| v"))


def instrument(key: str, info: Info) -> tuple[str, ...]:
    maker = info.maker[0].upper() + info.maker[1:]
    return (
        f"[`{key}`](../instruments/{key}/notes.md)",
        f"{maker}: {', '.join(info.models)}",
        f"`{info.extra}`" if info.extra else "",
        str(info.verified),
        info.verified_note,
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in rows]
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()
