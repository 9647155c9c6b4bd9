"""Which dialect a Siglent speaks, by what it says that it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulemeter.scpi import Identity

_MAKER = re.compile(r"SIGLENT|LECROY|TELEDYNE", re.IGNORECASE)
# The first that fits: pattern of the model, family, new dialect or old (ngscopeclient/scopehal; Siglent's guides).
_MODELS = (
    (r"SDS[128]\d{2,3}X ?HD|SDS3\d{3}X ?HD|SDS7\d{3}A?|SDS6\d{3}.*|T3DSO2\d{3}HD", "hd", True),
    (r"SDS2\d{3}X ?(PLUS|\+)|SDS5\d{3}X|T3DSO2\d{3}A", "plus", True),
    (r"SDS[12]\d{3}X?(-E|\+|-S)?|T3DSO1\d{3}A?|T3DSO2\d{3}", "old", False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`family` is a key of FAMILIES. `inputs` is how many there are."""

    family: str
    new: bool
    inputs: int


def model(identity: Identity) -> Model | None:
    """None for what is none of these."""
    name = identity.model.strip().upper()
    if not _MAKER.search(identity.maker):
        return None
    if "SIGLENT" not in identity.maker.upper() and not name.startswith("T3DSO"):
        return None
    for pattern, family, new in _MODELS:
        if re.fullmatch(pattern, name):
            digits = re.search(r"\d{3,4}", name)
            inputs = int(digits[0][-1]) if digits else 0
            return Model(family=family, new=new, inputs=inputs if inputs in (2, 4) else 4)
    return None


def fits(identity: Identity) -> bool:
    return model(identity) is not None
