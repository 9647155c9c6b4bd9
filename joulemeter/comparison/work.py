"""What was inferred: which results and published rows have the same model, whatever each calls it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from joulemeter import profile
from joulemeter.literature import TASKS, Row

# What one published table calls a model that others call differently: (model, task) -> the card in profiles/models.
_ELSEWHERE = {("MobileNet", "image classification (CIFAR10)"): "mobilenet-cifar10"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`key` is equal where the work is: a benchmark, or else a model. `title` is for people."""

    key: str
    title: str
    task: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cards:
    names: Mapping[str, str]
    hashes: Mapping[str, str]
    cards: Mapping[str, profile.Model]


@functools.cache
def _cards() -> _Cards:
    """The models of profiles/models by everything that they are called."""
    cards = {stem: profile.load("model", stem) for stem in profile.names("models")}
    names: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for stem, card in cards.items():
        files = [PurePath(variant.file).stem for variant in card.variants if variant.file]
        # ad01 and so on are what the firmware of the benchmark answers.
        for name in (stem, card.name, *card.aliases, *files, *([f"{stem}01"] if stem in TASKS else [])):
            names[profile.fold(name)] = stem
        hashes |= {variant.sha256: stem for variant in card.variants if variant.sha256}
    return _Cards(names=names, hashes=hashes, cards=cards)


def of_model(model: str | None, sha256: str | None = None, task: str | None = None) -> Work | None:
    """The work of a model by its file's hash, its name or its file's name; None where nobody says which it was."""
    known = _cards()
    stem = known.hashes.get(sha256 or "")
    if stem is None and model:
        stem = known.names.get(profile.fold(model)) or known.names.get(profile.fold(PurePath(model).stem))
    if stem is not None:
        return of_benchmark(stem) if stem in TASKS else _of_card(stem)
    if not model or not profile.fold(model):
        return None
    return Work(key=profile.fold(model), title=model, task=task)


def of_benchmark(name: str) -> Work:
    """A benchmark of MLPerf Tiny."""
    task = TASKS.get(name)
    return Work(key=f"mlperf-tiny:{name}", title=f"MLPerf Tiny {name}" + (f" ({task})" if task else ""), task=task)


def of_row(row: Row) -> Work:
    if row.benchmark is not None:
        return of_benchmark(row.benchmark)
    card = _ELSEWHERE.get((row.model, row.task or ""))
    found = of_model(card or row.model, task=row.task)
    return found or Work(key=row.model, title=row.model, task=row.task)


def of_workload(workload: Mapping[str, Any] | None) -> Work | None:
    """Of a result's workload."""
    given = workload or {}
    model, sha256 = given.get("model"), given.get("model_sha256")
    return of_model(None if model is None else str(model), None if sha256 is None else str(sha256))


def _of_card(stem: str) -> Work:
    card = _cards().cards[stem]
    return Work(key=stem, title=card.name, task=card.task)
