"""Requests and answers on a link, in the place of otii_tcp_client's own connection.

That one waits for ever where it is given no limit, begins its limit anew with each packet, takes an announcement of the
app for an answer, and fails on an answer that came too late for the request before. Here a request has one limit, and
only its own answer ends it. Its devices, projects and recordings use the two methods without a line under their names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from joulemeter.errors import KEPT, AccessError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.transport import Link

from . import wire

GREETING_S = 3.0
# The longest that any request may take, whatever the client asks for; while samples are pulled, much less.
PATIENCE_S = 15.0
# Who has not answered the last one is given less.
SILENT_S = 0.5
# Answers come in pieces: short reads put them together without waiting for more.
READ_S = 1e-3

START_APP = (
    "Start the Otii app (Otii 3, or otii_server) and switch its TCP server on; it listens at port 1905 of its host."
)
LICENCE = "Scripting needs Qoitech's Automation Toolbox"

# The app's error codes, as its client lists them: class, and what to do.
REFUSALS: dict[str, tuple[type[JouleMeterError], str]] = {
    "No license": (AccessError, f"{LICENCE}: reserve its licence in the app, or buy one."),
    "Not logged in": (AccessError, "Log in in the Otii app, or set OTII_USERNAME and OTII_PASSWORD."),
    "Could not login": (AccessError, "Check OTII_USERNAME and OTII_PASSWORD, or credentials.json, and the network."),
    "License could not be reserved": (AccessError, f"{LICENCE}; return the licence where it is in use."),
    "Connection denied": (AccessError, "End the other program that is connected to the Otii app."),
    "Device not connected": (NotFoundError, "Connect the Otii by USB, and see that the app shows it."),
    "Project does not exist": (NotFoundError, "Leave the project open in the app while recording."),
    "Not ready": (IncompleteError, "Wait until the app has set the device up, then try again."),
    "Command timeout": (IncompleteError, "Unplug the Otii and plug it in again."),
    "Command not valid for device type": (UsageError, "This model cannot do it: leave the option out."),
    "Operation not supported": (UsageError, "This model cannot do it: leave the option out."),
    "Invalid key value": (UsageError, "Choose a value that this model can take."),
    "Invalid command": (UsageError, "Bring the Otii app up to date."),
}
UNSUPPORTED = ("Invalid command", "Command not valid for device type", "Operation not supported")


class NoAnswer(Exception):  # noqa: N818 - not always an error
    """Nothing came in time, or it was spoilt; asking again does no harm."""


class Refused(Exception):  # noqa: N818 - becomes one of ours, or is expected
    """The app answered with an error; `text` is its own words, where it has any."""

    def __init__(self, code: str, command: str, text: str) -> None:
        super().__init__(f"{command}: {code}")
        self.code, self.command, self.text = code, command, text

    def explained(self) -> JouleMeterError:
        kind, remedy = REFUSALS.get(self.code, (AccessError, "See what the Otii app shows."))
        said = f" ({self.text})" if self.text else ""
        return kind(f"The Otii app refused {self.command}: {self.code}{said}.", remedy)


def refusal(answer: Mapping[str, Any], command: str) -> Refused:
    data = answer.get("data") or answer.get("payload") or {}
    text = data.get("message") if isinstance(data, dict) else data
    return Refused(str(answer.get("errorcode", "no reason given")), command, str(text or ""))


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Refusals and silence as errors that a person reads."""
    try:
        yield
    except Refused as refused:
        raise refused.explained() from refused
    except NoAnswer as silent:
        raise IncompleteError(
            f"The Otii app at {where} has stopped answering.", "Restart it, then try again."
        ) from silent


class Connection:
    def __init__(self, link: Link, greeting_s: float = GREETING_S) -> None:
        """Raises NotFoundError where no Otii app greets, AccessError where it denies the connection."""
        self._link = link
        self._lines = wire.Lines()
        self._waiting: list[bytes] = []
        self._requests = 0
        self.limit_s = PATIENCE_S
        self._silent = False
        self.greeting = self._greeted(greeting_s)

    def _greeted(self, within_s: float) -> wire.Greeting:
        nobody = NotFoundError(f"What is at {self._link.address} does not greet as the Otii app does.", START_APP)
        try:
            message = self._next(time.monotonic() + within_s)
        except (NoAnswer, IncompleteError) as error:
            raise nobody from error
        if message["type"] == "error":
            raise refusal(message, "the connection").explained()
        greeting = wire.greeting(message)
        if greeting is None:
            raise nobody
        return greeting

    def send_and_receive(self, request: dict[str, Any], timeout: float | None = 3) -> dict[str, Any]:
        """The answer. Raises Refused, NoAnswer, and IncompleteError when the connection is lost."""
        self._requests += 1
        trans_id = str(self._requests)
        limit_s = min(self.limit_s, timeout or self.limit_s, SILENT_S if self._silent else PATIENCE_S)
        self._silent = True
        try:
            self._link.write(wire.line({**request, "trans_id": trans_id}))
            return self._answer(str(request["cmd"]), trans_id, time.monotonic() + limit_s)
        except IncompleteError as error:
            raise IncompleteError(
                f"The Otii app at {self._link.address} has gone: it was closed, or the network failed.",
                f"Start it again, and see whether the meter's output is still on. {KEPT}",
            ) from error

    def _answer(self, command: str, trans_id: str, deadline: float) -> dict[str, Any]:
        while True:
            message = self._next(deadline)
            if message["type"] not in ("response", "error") or message.get("trans_id", trans_id) != trans_id:
                continue  # an announcement, progress, or the answer to a question that was given up
            self._silent = False
            if message["type"] == "error":
                raise refusal(message, command)
            return message

    def close_connection(self) -> None:
        """Take what is still on its way, so that the other side sees an end and no break; then hang up."""
        with contextlib.suppress(JouleMeterError, OSError):
            while self._link.read(0):
                pass
        with contextlib.suppress(JouleMeterError, OSError):
            self._link.close()

    def _next(self, deadline: float) -> dict[str, Any]:
        """The next message. Raises NoAnswer."""
        while not self._waiting:
            if time.monotonic() >= deadline:
                raise NoAnswer
            self._waiting += self._lines.feed(self._link.read(READ_S))
        message = wire.parse(self._waiting.pop(0))
        if message is None:
            raise NoAnswer
        return message


def ask(connection: Connection, command: str, **data: Any) -> Any:
    """The data of an answer, for what is asked where the client package may be absent."""
    request = {"type": "request", "cmd": command, "data": data}
    return connection.send_and_receive(request).get("data")
