"""Every instrument there is, found and not listed, kept to the contract; and the contract itself, shown to catch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest

from joulemeter import registry, scpi
from joulemeter.capture import Block, Header
from joulemeter.instrument import InstrumentModule
from joulemeter.testing.contract import CHECKS, Broken, Check, Skipped, Subject

# Simulated meters keep real time, so most of a check is waiting.
AT_ONCE = 8
# ... and of that, waiting for instruments that were made silent.
SILENCE_S = 1.5


def kept(key: str) -> dict[Check, BaseException | None]:
    """What each check says of one instrument; one subject for all, so that they share what was captured."""
    subject = Subject(module=registry.instrument(key))
    found: dict[Check, BaseException | None] = {}
    for check in CHECKS:
        try:
            found[check] = check(subject)
        except Exception as error:
            found[check] = error
    return found


@cache
def outcomes() -> dict[str, dict[Check, BaseException | None]]:
    keys = registry.keys(registry.INSTRUMENTS)
    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor(AT_ONCE) as pool:
        patched.setattr(scpi, "TIMEOUT_S", SILENCE_S)
        return dict(zip(keys, pool.map(kept, keys), strict=True))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("key", registry.keys(registry.INSTRUMENTS))
def test_contract(key: str, check: Check) -> None:
    said = outcomes()[key][check]
    if isinstance(said, Skipped):
        pytest.skip(str(said))
    if said is not None:
        raise said


def broken(**changes: Any) -> InstrumentModule:
    """The PPK2 with one thing spoilt."""
    real = registry.instrument("ppk2")
    names = {name: getattr(real, name) for name in ("INFO", "discover", "open", "decoder", "simulate")}
    return cast(InstrumentModule, SimpleNamespace(**{**names, **changes}))


class Meddler:
    """A decoder whose answers somebody changes."""

    def __init__(self, header: Header) -> None:
        self._decoder = registry.instrument("ppk2").decoder(header)
        self.state, self.restore = self._decoder.state, self._decoder.restore

    def change(self, blocks: Sequence[Block]) -> list[Block]:
        return list(blocks)

    def feed(self, raw: bytes) -> list[Block]:
        return self.change(self._decoder.feed(raw))

    def finish(self) -> list[Block]:
        return self.change(self._decoder.finish())


class Wrong(Meddler):
    def change(self, blocks: Sequence[Block]) -> list[Block]:
        for block in blocks:
            cast(Any, block.data["current"])[:] *= 1.01
        return list(blocks)


class Smearing(Meddler):
    def change(self, blocks: Sequence[Block]) -> list[Block]:
        from dataclasses import replace

        return [replace(block, lost_before=0) for block in blocks]


class Forgetful(Meddler):
    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self.restore = lambda state: None


@pytest.mark.parametrize(
    ("decoder", "check"),
    [
        (Wrong, "measures_the_truth"),
        (Smearing, "lost_samples_are_counted"),
        (Forgetful, "decoding_can_be_resumed"),
    ],
)
def test_the_contract_catches(decoder: type[Meddler], check: str) -> None:
    (chosen,) = [each for each in CHECKS if each.__name__ == check]
    with pytest.raises(Broken):
        chosen(Subject(module=broken(decoder=decoder)))
