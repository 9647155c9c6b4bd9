"""Which NVIDIA GPUs this host has. No driver, or no package where there is no driver, is nothing to tell."""

from __future__ import annotations

import contextlib
from pathlib import Path

from joulemeter.errors import JouleMeterError, MissingExtraError
from joulemeter.instrument import Found

from . import gpus, library

# There while the kernel module is loaded.
DRIVER = Path("/proc/driver/nvidia/version")


def discover(key: str, nvml: library.Nvml | None = None, driver: Path = DRIVER) -> list[Found]:
    """Every GPU, with what stands in its way."""
    try:
        nvml = nvml or library.load()
    except MissingExtraError as error:
        return [_stuck(key, error)] if driver.exists() else []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [] if library.code(error) in library.ABSENT else [_stuck(key, library.explain(error))]
    try:
        return [_found(key, gpu) for gpu in gpus.every(nvml)]
    except nvml.NVMLError as error:
        return [_stuck(key, library.explain(error))]
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _found(key: str, gpu: gpus.Gpu) -> Found:
    problem = remedy = None
    try:
        gpus.refuse(gpu)
    except JouleMeterError as error:
        problem, remedy = error.what, error.remedy
    return Found(
        key=key, address=gpu.uuid, description=gpu.description, serial=gpu.uuid, problem=problem, remedy=remedy
    )


def _stuck(key: str, error: JouleMeterError) -> Found:
    return Found(key=key, address="", description="NVIDIA GPUs", problem=error.what, remedy=error.remedy)
