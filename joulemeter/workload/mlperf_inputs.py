"""The inputs of MLPerf Tiny: five of them, one per window, from the benchmark's own files or drawn from a seed."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from joulemeter.errors import NotFoundError, UsageError

INPUTS = 5
# Bytes of one input by the letters of the model's name (mlcommons/tiny, MAX_DB_INPUT_SIZE of each reference): 49 x 10
# int8 features, 96 x 96 x 3 pixels, 5 x 128 float32 features, 32 x 32 x 3 pixels.
SIZES = {"kws": 490, "vww": 96 * 96 * 3, "ad": 5 * 128 * 4, "ic": 32 * 32 * 3}
# Of a file of this benchmark, one input is the beginning only: a sound is longer than what the model sees at once.
FIRST_OF_FILE = "ad"
LABELS = "y_labels.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """`label` is the right class where the benchmark's y_labels.csv names it."""

    name: str
    data: bytes
    label: int | None = None


def family(model: str) -> str:
    """`kws` of `kws01`."""
    match = re.match(r"[a-z]+", model.lower())
    return match[0] if match else ""


def drawn(model: str, seed: int) -> tuple[Input, ...]:
    """Random inputs of the model's size. Raises UsageError for a model whose inputs are not known."""
    size = SIZES.get(family(model))
    if size is None:
        raise UsageError(
            f"The board runs {model!r}, whose inputs are not known here.",
            f"Give a folder of .bin files as the option input; known are {', '.join(SIZES)}.",
        )
    generator = np.random.default_rng(seed)
    if family(model) == FIRST_OF_FILE:
        # A spectrum in decibels; random bytes would be infinities and numbers that are none.
        values = generator.uniform(-60, 0, (INPUTS, size // 4)).astype("<f4")
        rows = [row.tobytes() for row in values]
    else:
        rows = [generator.bytes(size) for _ in range(INPUTS)]
    return tuple(Input(name=f"seed {seed} #{k}", data=data) for k, data in enumerate(rows))


def find(folder: Path) -> list[Path]:
    """The first five .bin files by name. Raises NotFoundError, UsageError."""
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}.", "The option input names a folder of .bin files.")
    files = sorted(folder.glob("*.bin"))
    if len(files) < INPUTS:
        raise UsageError(
            f"{folder} has {len(files)} .bin files.", f"The benchmark wants {INPUTS} different inputs, one per window."
        )
    return files[:INPUTS]


def read(files: list[Path], model: str) -> tuple[Input, ...]:
    """Raises UsageError for a file that is not an input of this model."""
    size = SIZES.get(family(model))
    labels = _labels(files[0].parent)
    inputs = []
    for file in files:
        data = file.read_bytes()
        if size is not None and family(model) == FIRST_OF_FILE:
            data = data[:size]
        if not data or (size is not None and len(data) != size):
            raise UsageError(
                f"{file} has {len(data)} bytes.", f"An input of {model} has {size or 'at least one'}: is it its folder?"
            )
        inputs.append(Input(name=file.name, data=data, label=labels.get(file.name)))
    return tuple(inputs)


def _labels(folder: Path) -> dict[str, int]:
    """Rows of file, number of classes, class, ..."""
    try:
        with (folder / LABELS).open(newline="") as rows:
            return {row[0]: int(row[2]) for row in csv.reader(rows) if len(row) > 2 and row[2].strip().isdecimal()}
    except OSError:
        return {}
