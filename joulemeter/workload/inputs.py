"""What a model file is fed with: drawn values, arrays, images or a folder of these, fitted to its input tensors.

Drawn inputs come from a seeded generator, uniform over what the tensor can hold: all values of an 8 or 16 bit integer,
both of a bool, [0, 1) of a float. Wider integers are usually indices or lengths, so they are 0 or 1, which every
vocabulary has.

A *sample* is one row of the batch, of the tensor's shape without its first dimension. A *set* is one array for each
input tensor, in that tensor's shape and type: what one inference takes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import MissingExtraError, UsageError

Set = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input tensor. `scale` is None where the runtime gives none; else the real value is scale (q - zero_point)."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float | None = None
    zero_point: int = 0

    @property
    def batch(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def sample(self) -> tuple[int, ...]:
        return self.shape[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """`labels`, shape (samples,), int64: the class of each sample in order. The last set is filled up from the first.

    `described` goes into the result.
    """

    sets: tuple[Set, ...]
    described: Mapping[str, Any]
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """The values that black and white stand for."""

    black: float
    white: float


PIXELS = {
    "0..1": Pixels(black=0, white=1),
    "-1..1": Pixels(black=-1, white=1),
    "0..255": Pixels(black=0, white=255),
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def draw(specs: Sequence[TensorSpec], seed: int) -> Feed:
    """One set of random values. Raises UsageError for a tensor of text or of another type without numbers."""
    generator = np.random.default_rng(seed)
    return Feed(sets=(tuple(_random(spec, generator) for spec in specs),), described={"seed": seed})


def read(path: Path, specs: Sequence[TensorSpec], *, labels: Path | None = None, pixels: str | None = None) -> Feed:
    """The samples in a file or folder, sorted by name; sub-folders are classes in sorted order.

    A .npy file holds one sample or a stack of samples of the only input, a .npz file the same for each input by name.
    Integers must be of the tensor's own type. Floats going into a quantised tensor become
    clip(round(x / scale) + zero_point), ties to even. Images are resized (bilinear, as Pillow does it) to the tensor's
    height and width, in grey or RGB as it has channels, and scaled to `pixels`, a key of PIXELS; None is 0..1 for a
    float tensor, and for a quantised one the range that it covers.

    `labels` holds an integer class for each sample, one a line, or as .npy; it goes before the folders' classes.

    Raises UsageError, or MissingExtraError where images need Pillow.
    """
    files = _files(path)
    image = any(file.suffix.lower() in _IMAGES for file, _ in files)
    if pixels is not None and not image:
        raise UsageError(f"pixels={pixels} has no use: {path} holds no image.", "Leave pixels out.")
    chosen = _pixel_range(_only(specs, path), pixels) if image else None
    columns: list[list[NDArray[Any]]] = [[] for _ in specs]
    classes: list[int | None] = []
    for file, number in files:
        rows = _READERS[file.suffix.lower()](file, specs, chosen)
        for column, values, spec in zip(columns, rows, specs, strict=True):
            column.append(_fitted(_rows(values, spec, file), spec, file))
        classes += [number] * len(columns[0][-1])
    stacks = [np.concatenate(column) for column in columns]
    described = {"name": path.name, "count": len(stacks[0])} | ({"pixels": chosen} if chosen else {})
    return Feed(sets=_sets(stacks, specs, path), described={"input": described}, labels=_labels(labels, classes, path))


def quantised(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """clip(round(x / scale) + zero_point) in the tensor's type, computed in float64, ties to even."""
    limits = np.iinfo(spec.dtype)
    steps = np.rint(values.astype(np.float64) / _scale(spec)) + spec.zero_point
    fitted: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return fitted


def _scale(spec: TensorSpec) -> float:
    if spec.scale is None:
        raise ValueError(f"{spec.name} is not quantised")
    return spec.scale


def _random(spec: TensorSpec, generator: np.random.Generator) -> NDArray[Any]:
    kind, shape = spec.dtype, spec.shape
    if kind.kind == "f":
        return generator.random(shape).astype(kind)
    if kind.kind in "iu" and kind.itemsize <= 2:
        limits = np.iinfo(kind)
        return generator.integers(limits.min, limits.max, shape, dtype=kind.type, endpoint=True)
    if kind.kind in "iub":
        return generator.integers(0, 1, shape, endpoint=True).astype(kind)
    raise UsageError(f"The input {spec.name!r} holds {kind}, which cannot be filled with random values.")


def _files(path: Path) -> list[tuple[Path, int | None]]:
    """Each file with its class, None where there are no class folders."""
    if path.is_file():
        if path.suffix.lower() not in _READERS:
            raise UsageError(f"{path} cannot be read as an input.", f"It is a folder or one of {', '.join(_READERS)}.")
        return [(path, None)]
    if not path.is_dir():
        raise UsageError(f"There is no input {path}.", "Check the path.")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files: list[tuple[Path, int | None]] = [(file, None) for file in _known(path)]
    if folders and files:
        raise UsageError(
            f"{path} holds both samples and folders.", "Give each class a folder, or put all samples into one."
        )
    files += [(file, number) for number, folder in enumerate(folders) for file in _known(folder)]
    if not files:
        raise UsageError(f"{path} holds no sample.", f"A sample is one of {', '.join(_READERS)}.")
    return files


def _known(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in _READERS and not f.name.startswith("."))


# --- files


def _npy(path: Path, specs: Sequence[TensorSpec], _: str | None) -> list[NDArray[Any]]:
    _only(specs, path)
    return [_array(path)]


def _npz(path: Path, specs: Sequence[TensorSpec], _: str | None) -> list[NDArray[Any]]:
    arrays = _loaded(path)
    if not isinstance(arrays, dict):
        raise UsageError(f"{path} is a .npy file by another name.", "Give it the ending .npy.")
    names = [spec.name for spec in specs]
    if set(arrays) != set(names):
        raise UsageError(
            f"{path} holds {_listed(arrays)}, but the model's inputs are {_listed(names)}.",
            "Name the arrays after the inputs.",
        )
    return [arrays[name] for name in names]


def _array(path: Path) -> NDArray[Any]:
    loaded = _loaded(path)
    if isinstance(loaded, dict):
        raise UsageError(f"{path} is a .npz file by another name.", "Give it the ending .npz.")
    return loaded


def _loaded(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} cannot be read as numbers: {error}.", "Write it with numpy.save or numpy.savez."
        ) from error


def _picture(path: Path, specs: Sequence[TensorSpec], pixels: str | None) -> list[NDArray[Any]]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("Images as input need Pillow.", "pillow") from error
    spec = _only(specs, path)
    height, width, channels, channels_first = _layout(spec, path)
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UsageError(f"{path} has more than 8 bits a colour.", "Convert it to 8 bits, or give a .npy.")
            picture = image.convert(_MODES[channels])
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path} is not an image that can be read: {error}.") from error
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(picture).reshape(height, width, channels)
    if channels_first:
        values = np.moveaxis(values, -1, 0)
    values = values.reshape(spec.sample)
    if spec.dtype.kind in "iu" and spec.scale is None:
        return [values]
    span = PIXELS[pixels or "0..1"]
    return [span.black + (span.white - span.black) * (values / 255)]


_IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
_READERS: dict[str, Callable[[Path, Sequence[TensorSpec], str | None], list[NDArray[Any]]]] = {
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys(_IMAGES, _picture),
}


def _only(specs: Sequence[TensorSpec], path: Path) -> TensorSpec:
    if len(specs) != 1:
        names = _listed(spec.name for spec in specs)
        raise UsageError(f"{path} fills one input, but the model has {names}.", "Give a .npz with an array for each.")
    return specs[0]


def _layout(spec: TensorSpec, path: Path) -> tuple[int, int, int, bool]:
    """Height, width, channels, and whether the channels come before them."""
    match spec.sample:
        case (height, width, channels) if channels in _MODES:
            return height, width, channels, False
        case (channels, height, width) if channels in _MODES:
            return height, width, channels, True
        case (height, width):
            return height, width, 1, False
    raise UsageError(
        f"{path} is an image, but the input {spec.name!r} has the shape {spec.shape}.",
        "An image needs height and width, and 1, 3 or 4 channels last or first. Give a .npy otherwise.",
    )


def _pixel_range(spec: TensorSpec, asked: str | None) -> str:
    """Key of PIXELS. Of a quantised tensor's range each end may be off by a quarter."""
    integer = spec.dtype.kind in "iu"
    if integer and spec.scale is None:
        if spec.dtype != np.uint8 or asked not in (None, "0..255"):
            raise UsageError(
                f"The input {spec.name!r} holds {spec.dtype}, and the runtime does not say what that stands for.",
                "Give the samples as .npy of that type.",
            )
        return "0..255"
    if asked is not None:
        return asked
    if not integer:
        return "0..1"
    limits = np.iinfo(spec.dtype)
    low, high = ((end - spec.zero_point) * _scale(spec) for end in (limits.min, limits.max))

    def off(name: str) -> float:
        span = PIXELS[name]
        return max(abs(low - span.black), abs(high - span.white)) / (span.white - span.black)

    nearest = min(PIXELS, key=off)
    if off(nearest) > 0.25:
        raise UsageError(
            f"The input {spec.name!r} covers {low:.3g} to {high:.3g}, which is none of the usual ranges of pixels.",
            f"Choose pixels={'|'.join(PIXELS)}, or give the samples as .npy.",
        )
    return nearest


# --- fitting


def _rows(values: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    """In the shape (samples, *sample)."""
    if values.shape == spec.sample:
        return values[np.newaxis]
    if values.ndim and values.shape[1:] in (spec.sample, spec.shape) and values.size:
        return values.reshape(-1, *spec.sample)
    raise UsageError(
        f"{path} has the shape {values.shape}, but the input {spec.name!r} has {spec.shape}.",
        f"Give one sample of shape {spec.sample}, or a stack of them.",
    )


def _fitted(values: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    if values.dtype == spec.dtype:
        return values
    if values.dtype.kind == "f" and spec.dtype.kind == "f":
        return values.astype(spec.dtype)
    if values.dtype.kind == "f" and spec.dtype.kind in "iu" and spec.scale is not None:
        if np.isnan(values).any():
            raise UsageError(f"{path} holds values that are not numbers, which {spec.dtype} cannot hold.")
        return quantised(values, spec)
    remedy = f"Store it as {spec.dtype}"
    remedy += ", or as the real values in float32." if spec.scale is not None else "."
    raise UsageError(f"{path} holds {values.dtype}, but the input {spec.name!r} takes {spec.dtype}.", remedy)


def _sets(stacks: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], path: Path) -> tuple[Set, ...]:
    counts = [-(-len(stack) // spec.batch) for stack, spec in zip(stacks, specs, strict=True)]
    if len(set(counts)) != 1:
        held = ", ".join(f"{len(stack)} of {spec.name!r}" for stack, spec in zip(stacks, specs, strict=True))
        raise UsageError(f"{path} holds samples that do not belong together: {held}.", "Give each input as many.")
    columns = []
    for stack, spec in zip(stacks, specs, strict=True):
        wanted = counts[0] * spec.batch
        whole = stack if wanted == len(stack) else stack[np.arange(wanted) % len(stack)]
        columns.append(np.ascontiguousarray(whole).reshape(counts[0], *spec.shape))
    return tuple(zip(*columns, strict=True))


def _labels(path: Path | None, classes: Sequence[int | None], source: Path) -> NDArray[np.int64] | None:
    if path is None:
        known = [number for number in classes if number is not None]
        return np.array(known, dtype=np.int64) if known else None
    labels = _label_file(path)
    if len(labels) != len(classes):
        raise UsageError(
            f"{path} has {len(labels)} labels, but {source} has {len(classes)} samples.",
            "Give one label for each sample, in the order of the sorted files.",
        )
    return labels


def _label_file(path: Path) -> NDArray[np.int64]:
    if path.suffix.lower() == ".npy" and path.is_file():
        loaded = _array(path)
        if loaded.dtype.kind not in "iu" or loaded.ndim != 1:
            raise UsageError(f"{path} holds {loaded.dtype} of shape {loaded.shape}.", "Labels are a row of integers.")
        return loaded.astype(np.int64)
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError as error:
        raise UsageError(f"There are no labels {path}.", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The labels {path} cannot be read: {error}.") from error
    labels = []
    for number, line in enumerate(lines, 1):
        if not line.strip().isdecimal():
            raise UsageError(f"Line {number} of {path} is {line[:40]!r}.", "Each line is the number of a class.")
        labels.append(int(line))
    return np.array(labels, dtype=np.int64)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
