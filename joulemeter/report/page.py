"""What every HTML page of ours is made of: our own files, plotly.js, a policy that names the scripts, and escaping."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from joulemeter.report.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def own_file(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files("joulemeter.report") / name).read_text("utf-8")


def plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    # Browsers hash a script with its line ends made one, and find its end by its letters.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def script_hash(script: str) -> str:
    """The script as a source that a content security policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def environment() -> Environment:
    """Templates in which every text is escaped, what hides is visible, and what is not known is called so."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> str:
        if isinstance(value, Markup):
            return value
        return "unknown" if value is None else visible(value)

    return Environment(autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True)


def our_own(text: str) -> Markup:
    """Text of this package, which goes into a page as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704


def embedded(content: Mapping[str, Any]) -> Markup:
    """JSON for a script element: without any "<", nothing inside can close the element or open a comment."""
    return our_own(json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
