"""PPK2 decoding keeps its distance from ppk2-api, in one run on one machine. The table: bench_ppk2_decode.py."""

from __future__ import annotations

import importlib.util
import os

import bench_ppk2_decode
import pytest


@pytest.mark.bench
@pytest.mark.outside
@pytest.mark.skipif(importlib.util.find_spec("ppk2_api") is None, reason="ppk2-api is not installed")
@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_numpy_decodes_at_least_25_times_as_fast_as_ppk2_api() -> None:
    """Usually above 50; the rest is room for a busy machine."""
    ((_, _, ratio),) = bench_ppk2_decode.ratios(["numpy"], (4096,), 400_000, 5).values()
    assert ratio >= 25
