"""A model in a file, run by a runtime on this host. Everything but loading it and calling it is here.

A runtime is a module with a Model, whose `_open` returns a Session, a table of the options of its own, and `create`.

The window holds `invoke` alone. Inputs are set before it, outside the stamps, and outputs are taken after it only when
the option phases=io asks for it; the two are then stamped as the phases "set" and "get".
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import UsageError
from joulemeter.workload import (
    Edge,
    Say,
    Stamps,
    Workload,
    cpu_governor,
    cpu_model,
    inputs,
    refuse_unknown_options,
    whole,
)
from joulemeter.workload.inputs import Feed, Set, TensorSpec
from joulemeter.workload.stamping import Around, stamp

# From the option's name and text to its value; raises UsageError.
Reading = Callable[[str, str], Any]


class Session(ABC):
    """A model that its runtime has loaded, with memory of its own for inputs and outputs.

    `invoke` is one inference from the inputs as they were filled to outputs that `outputs` copies, and nothing besides.
    `failures` are what the runtime raises. `inputs` are in the order in which `fill` takes them.
    """

    inputs: Sequence[TensorSpec]
    invoke: Callable[[], object]
    failures: tuple[type[Exception], ...] = (ValueError, RuntimeError)

    @abstractmethod
    def fill(self, values: Set) -> None:
        """Copy one array into each input."""

    @abstractmethod
    def outputs(self) -> list[NDArray[Any]]:
        """A copy of each output of the last inference."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """`runtime`, `version`, `delegate` and `threads`, and what else this runtime's figures depend on."""


class Common(TypedDict, total=False):
    """What every Model takes: threads 1, batch as in the file, seed 0 and no input unless they are given.

    `labels` and `pixels` are for `inputs.read`. `phases` has the setting of inputs and the taking of outputs stamped.
    """

    threads: int
    batch: int | None
    seed: int
    input: Path | None
    labels: Path | None
    pixels: str | None
    phases: bool


def choice(values: Mapping[str, Any], name: str, text: str) -> Any:
    """An option that is a key of `values`. Raises UsageError."""
    if text not in values:
        raise UsageError(f"{name} cannot be {text!r}.", f"It is {' or '.join(values)}.")
    return values[text]


def file(_: str, text: str) -> Path:
    return Path(text).expanduser()


def words(_: str, text: str) -> str:
    return text


COMMON: Mapping[str, Reading] = {
    "threads": partial(whole, least=1),
    "batch": partial(whole, least=1),
    "seed": partial(whole, least=0),
    "input": file,
    "labels": file,
    "pixels": partial(choice, {name: name for name in inputs.PIXELS}),
    "phases": partial(choice, {"io": True}),
}


class Model(Workload):
    """`kind` is its name on the command line, `what` its files are, `options` those it has besides COMMON."""

    kind: ClassVar[str]
    what: ClassVar[str]
    options: ClassVar[Mapping[str, Reading]] = {}

    def __init__(self, path: Path, **common: Unpack[Common]) -> None:
        self.path = path
        self.threads = common.get("threads", 1)
        self.batch = common.get("batch")
        self.seed = common.get("seed", 0)
        self._input = common.get("input")
        self._labels = common.get("labels")
        self._pixels = common.get("pixels")
        self._phases = common.get("phases", False)
        for name, value in (("labels", self._labels), ("pixels", self._pixels)):
            if value is not None and self._input is None:
                raise UsageError(f"{name} belongs to inputs that are read, and these are drawn.", "Give input=FILE.")
        self._edge: Edge | None = None
        self._session: Session | None = None
        self._model_sha256: str | None = None
        self._accuracy: dict[str, Any] | None = None

    @abstractmethod
    def _open(self, content: bytes) -> Session:
        """Load the file, whose content this is, in the batch asked for. Raises UsageError or MissingExtraError."""

    def prepare(self) -> None:
        if self._session is not None:
            return
        content = self._content()
        try:
            session = self._open(content)
        except (ImportError, SystemError) as error:
            # tflite-runtime beside a numpy that it was not built for is a SystemError.
            raise UsageError(
                f"A runtime of {self.kind} models is installed, but does not work: {brief(error.__cause__ or error)}.",
                "Install it anew; one that was built for an older numpy needs numpy<2 beside it.",
            ) from error
        self._feed = self._filled(session.inputs)
        self._coming = cycle(self._feed.sets)
        self._session = session
        self._model_sha256 = hashlib.sha256(content).hexdigest()
        self._put(self._feed.sets[0])

    def describe(self) -> dict[str, Any]:
        session = self._ready()
        return {
            **session.describe(),
            "model": self.path.name,
            "model_sha256": self._model_sha256,
            "batch": _batch(session.inputs),
            "cpu": cpu_model(),
            "governor": cpu_governor(),
            **self._feed.described,
            **({} if self._accuracy is None else {"accuracy": self._accuracy}),
        }

    def ready(self, say: Say) -> None:
        """Where labels are known: run every sample once, and count the right answers."""
        session = self._ready()
        if self._feed.labels is None or self._accuracy is not None:
            return
        answers = []
        with self._explained():
            for values in self._feed.sets:
                session.fill(values)
                session.invoke()
                answers.append(self._classes(session.outputs()[0]))
        correct = int(np.count_nonzero(np.concatenate(answers)[: len(self._feed.labels)] == self._feed.labels))
        of = len(self._feed.labels)
        self._accuracy = {"top1": correct / of, "correct": correct, "of": of}
        say(f"{correct} of {of} samples are classified right")
        self._put(self._feed.sets[0])

    def warm_up(self, count: int) -> None:
        invoke = self._ready().invoke
        with self._explained():
            for _ in range(count):
                invoke()

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """Each window takes the next sample, and all its inferences that one."""
        session = self._ready()
        moving = self._phases or len(self._feed.sets) > 1
        around = Around(
            before={"set": lambda _: self._put(next(self._coming))} if moving else {},
            after={"get": lambda _: session.outputs()} if self._phases else {},
            edge=self._edge,
        )
        with self._explained():
            stamps = stamp(session.invoke, count, inferences_per_window or 1, around)
        return stamps if self._phases else replace(stamps, phases={})

    def edges(self, edge: Edge) -> None:
        self._edge = edge

    def inputs(self) -> list[NDArray[Any]]:
        """A copy of every input as it was last set."""
        self._ready()
        return [values.copy() for values in self._set]

    def outputs(self) -> list[NDArray[Any]]:
        """A copy of every output tensor of the last inference."""
        return self._ready().outputs()

    def close(self) -> None:
        self._session = None

    def _ready(self) -> Session:
        self.prepare()
        if self._session is None:
            raise RuntimeError("prepare() returned without a session")
        return self._session

    def _put(self, values: Set) -> None:
        self._set = values
        self._ready().fill(values)

    def _filled(self, specs: Sequence[TensorSpec]) -> Feed:
        if self._input is None:
            try:
                return inputs.draw(specs, self.seed)
            except UsageError as error:
                raise UsageError(f"{self.path} cannot be fed: {error.what}", "Give input=FILE.") from error
        return inputs.read(self._input, specs, labels=self._labels, pixels=self._pixels)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._ready().failures as error:
            raise UsageError(f"{self.path} does not run: {brief(error)}.") from error

    def _content(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as error:
            raise UsageError(f"There is no model {self.path}.", "Check the path.") from error
        except OSError as error:
            raise UsageError(f"The model {self.path} cannot be read: {error.strerror}.") from error
        if not content:
            raise UsageError(f"{self.path} is not {self.what}: it is empty.", "Convert or fetch it again.")
        return content

    def _unloadable(self, runtime: str, why: object) -> UsageError:
        return UsageError(
            f"{self.path} is not {self.what} that {runtime} can load: {brief(why)}.", "Convert or fetch it again."
        )

    def _classes(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """The class of each sample of one set. Raises UsageError for outputs that are no scores of classes."""
        samples = self._ready().inputs[0].batch
        if scores.ndim == 0 or scores.shape[-1] < 2 or scores.size != samples * scores.shape[-1]:
            raise UsageError(
                f"The first output of {self.path} has the shape {scores.shape}, which is no row of scores for each of "
                f"{samples} samples.",
                "Accuracy is for classifiers: leave the labels out, or give the samples in one folder.",
            )
        labels = self._feed.labels
        if labels is not None and labels.max() >= scores.shape[-1]:
            raise UsageError(
                f"There is a label {labels.max()}, but {self.path} knows {scores.shape[-1]} classes.",
                "Classes count from 0.",
            )
        classes: NDArray[np.int64] = np.argmax(scores.reshape(samples, -1), axis=-1).astype(np.int64)
        return classes


M = TypeVar("M", bound=Model)


def create(model: type[M], target: str, options: Mapping[str, str]) -> M:
    """The file `target` with the options of COMMON and of the model. Raises UsageError."""
    known = {**COMMON, **model.options}
    refuse_unknown_options(model.kind, options, known)
    if not target:
        raise UsageError(f"A workload {model.kind} needs a model.", f"Write {model.kind}:FILE.")
    return model(Path(target), **{name: known[name](name, text) for name, text in options.items()})


def sized(model: Path, name: str, shape: Sequence[object], batch: int | None, resizes: bool = False) -> tuple[int, ...]:
    """The shape with the batch asked for in its first dimension, 1 where any is as good.

    A dimension that may vary is anything but an int. `resizes` says that the runtime can change those that may not.
    Raises UsageError.
    """
    if batch is not None and not shape:
        raise UsageError(f"The input {name!r} of {model} is a single number: it has no batch.")
    fixed = [size if isinstance(size, int) else None for size in shape]
    if fixed and (resizes or fixed[0] is None):
        fixed[0] = batch or fixed[0] or 1
    elif batch is not None and fixed[0] != batch:
        raise UsageError(
            f"{model} cannot run with a batch of {batch}: the input {name!r} is fixed to {fixed[0]}.",
            "Leave the batch out, or convert the model with a batch dimension that may vary.",
        )
    sizes = [size for size in fixed if size is not None]
    if len(sizes) != len(fixed):
        raise UsageError(
            f"The input {name!r} of {model} has no fixed size: ({', '.join(map(str, shape))}).",
            "Convert the model with fixed sizes; only the first, the batch, may vary.",
        )
    return tuple(sizes)


def brief(text: object) -> str:
    """The text on one line, without its full stop."""
    return " ".join(str(text).split()).rstrip(".")[:300]


def _batch(specs: Sequence[TensorSpec]) -> int | None:
    """The first dimension that all inputs share, or None."""
    firsts = {spec.shape[0] if spec.shape else None for spec in specs}
    return firsts.pop() if len(firsts) == 1 else None
