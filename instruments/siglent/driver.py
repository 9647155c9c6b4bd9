"""Siglent oscilloscopes as meters; old.py and new.py have the two dialects."""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter.errors import NotFoundError
from joulemeter.instrument import Info, Options
from joulemeter.scope.driver import Dialect, ScopeDriver
from joulemeter.scope.setup import Family
from joulemeter.scpi import Scpi
from joulemeter.transport.visa import open_session

from .models import model
from .new import NewSiglent
from .old import OldSiglent


def open_driver(address: str, options: Options, info: Info, families: Mapping[str, Family]) -> ScopeDriver:
    """Raises NotFoundError, AccessError, UsageError."""
    info.chosen(options)
    scpi = Scpi(open_session(address, bare="TCPIP::{}::INSTR"))
    try:
        identity = scpi.identify()
        found = model(identity)
        if found is None:
            raise NotFoundError(
                f"At {address} is a {identity.maker} {identity.model}, not a Siglent oscilloscope.",
                "Siglent's own are SDS..., those that Teledyne LeCroy sells are T3DSO....",
            )
        family = families[found.family]
        dialect: Dialect = NewSiglent(scpi, found.inputs) if found.new else OldSiglent(scpi, found.inputs)
        simulated = (identity.serial or "").startswith("SIM")
        return ScopeDriver(dialect, identity, info, family, options, simulated=simulated)
    except BaseException:
        scpi.close()
        raise
