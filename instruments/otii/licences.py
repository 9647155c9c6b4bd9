"""Who may script the Otii app: an account, and the licence of Qoitech's Automation Toolbox.

What was there is used as it is; what is taken here is given back. As with the maker's client, credentials come from
credentials.json in the current folder, else from the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joulemeter.errors import AccessError, JouleMeterError

from .connection import LICENCE, UNSUPPORTED, NoAnswer, Refused

CREDENTIALS = Path("credentials.json")
WANTED = "Automation"
# Types of licences that hold the Automation Toolbox (otii_tcp_client 1.0.13).
HOLDING = ("Admin", "All", "Automation", "Enterprise")


class Licence:
    def __init__(self, otii: Any) -> None:
        """`otii` is the client's Otii, connected. Raises AccessError, Refused, NoAnswer."""
        self._otii = otii
        self._logged_in = False
        self._reserved: int | None = None
        try:
            if not otii.is_logged_in():
                otii.login(*_credentials())
                self._logged_in = True
            self._reserve()
        except BaseException:
            self.give_back()
            raise

    def _reserve(self) -> None:
        fitting = [each for each in self._otii.get_licenses() if each["type"] in HOLDING]
        if not fitting:
            raise AccessError(
                f"The account that the Otii app is logged in with has no {WANTED} licence.",
                f"{LICENCE} (www.qoitech.com); without it, export a recording of the app as CSV and read that.",
            )
        usable = [each for each in fitting if each["available"] and not each["reserved_to"]]
        if self._held(fitting):
            return
        if not usable:
            holders = ", ".join(f"{each['reserved_to']} on {each['hostname']}" for each in fitting)
            raise AccessError(
                f"All {len(fitting)} {WANTED} licences are in use ({holders}).",
                "Return one in the app that holds it, or wait.",
            )
        self._otii.reserve_license(usable[0]["id"])
        self._reserved = usable[0]["id"]

    def _held(self, fitting: Sequence[Mapping[str, Any]]) -> bool:
        """Whether this app has one already; older ones do not say on whose computer a licence is in use."""
        try:
            return bool(self._otii.has_license(WANTED))
        except Refused as refused:
            if refused.code not in UNSUPPORTED:
                raise
            return any(each["available"] and each["reserved_to"] for each in fitting)

    def give_back(self) -> None:
        """Whatever the state of the connection; twice does no harm."""
        reserved, self._reserved = self._reserved, None
        logged_in, self._logged_in = self._logged_in, False
        with contextlib.suppress(JouleMeterError, Refused, NoAnswer):
            if reserved is not None:
                self._otii.return_license(reserved)
            if logged_in:
                self._otii.logout()


def _credentials() -> tuple[str, str]:
    """Raises AccessError."""
    try:
        if CREDENTIALS.is_file():
            held = json.loads(CREDENTIALS.read_text(encoding="utf-8"))
            return str(held["username"]), str(held["password"])
        return os.environ["OTII_USERNAME"], os.environ["OTII_PASSWORD"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        there = f" {CREDENTIALS} could not be read ({error!r})." if CREDENTIALS.is_file() else ""
        raise AccessError(
            f"Nobody is logged in in the Otii app.{there}",
            "Log in there, or set OTII_USERNAME and OTII_PASSWORD.",
        ) from error
