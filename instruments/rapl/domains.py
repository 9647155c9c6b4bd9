"""Which zones make up what is to be measured.

A package holds its cores and its graphics (zones core and uncore below it) and its caches, but not its memory: dram
stands below it in the tree and is beside it in energy (Intel SDM 3B; powercap/powercap issue 3; kepler pull request
156; zeus pull request 92). psys is the whole platform, packages and memory included.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulemeter.errors import AccessError, NotFoundError, UsageError

from .wire import Zone

AUTO, PACKAGE, DRAM, PSYS = "auto", "package", "dram", "psys"


def choose(found: Sequence[Zone], domain: str) -> tuple[Zone, ...]:
    """Raises NotFoundError, UsageError where something would be counted twice, AccessError."""
    if not found:
        raise NotFoundError(
            "This machine shows no RAPL counters.",
            "That is normal in virtual machines, in containers, on CI, and on processors that are neither Intel's nor "
            "AMD's. On real ones: sudo modprobe intel_rapl_msr. A meter outside measures any machine.",
        )
    groups = {
        PACKAGE: [zone for zone in found if zone.package],
        DRAM: [zone for zone in found if zone.label == DRAM],
        PSYS: [zone for zone in found if zone.label == PSYS],
    }
    if domain == AUTO:
        chosen = groups[PACKAGE] + groups[DRAM] or groups[PSYS]
    elif domain in groups:
        chosen = groups[domain]
    else:
        chosen = [_named(found, name) for name in domain.split("+")]
    if not chosen:
        raise NotFoundError(f"This machine has no {domain} counter.", f"There are: {listed(found)}.")
    _refuse_double(chosen)
    for zone in chosen:
        refuse(zone, chosen)
    return tuple(chosen)


def _named(found: Sequence[Zone], name: str) -> Zone:
    chosen = [zone for zone in found if name.lower() in (zone.name.lower(), zone.label.lower())]
    if not chosen:
        raise NotFoundError(f"There is no RAPL zone {name!r} here.", f"There are: {listed(found)}.")
    if len(chosen) > 1:
        raise UsageError(f"{len(chosen)} zones are called {name!r}.", f"Name one: {listed(chosen)}.")
    return chosen[0]


def _refuse_double(chosen: Sequence[Zone]) -> None:
    places = {zone.place for zone in chosen}
    if len(places) < len(chosen):
        raise UsageError("One zone is named twice.", "Name each once.")
    for zone in chosen:
        if zone.label == PSYS and len(chosen) > 1:
            raise UsageError("psys already holds the packages and their memory.", "Choose --set domain=psys alone.")
        if zone.label != DRAM and zone.place.rpartition(":")[0] in places:
            raise UsageError(
                f"{zone.parent} already holds its {zone.label}: a sum would count it twice.",
                f"Choose --set domain={zone.parent} or --set domain={zone.name}.",
            )


def refuse(zone: Zone, chosen: Sequence[Zone]) -> None:
    """Raises AccessError or NotFoundError for a zone that cannot be read."""
    if zone.failure in ("EACCES", "EPERM"):
        raise AccessError(f"No permission to read {zone.path}.", permit([each.path for each in chosen]))
    if zone.failure is not None:
        raise NotFoundError(f"{zone.path} cannot be read: it says {zone.failure}.", "Choose another domain.")
    if zone.range_uj is None or zone.range_uj <= 0:
        raise NotFoundError(
            f"{zone.name} does not say where its counter turns over (max_energy_range_uj).", "Choose another domain."
        )


def permit(paths: Sequence[str]) -> str:
    """The three ways to let somebody read what only root may since Linux 5.10 (CVE-2020-8694)."""
    attributes = [path.removeprefix("/sys/") for path in paths]
    rules = "\\n".join(f"z {path} 0440 root rapl -" for path in paths)
    lines = "\\n".join(f"mode {each} = 0440\\nowner {each} = root:rapl" for each in attributes)
    return (
        "Only root may read it, for what a processor draws tells what it computes (CVE-2020-8694). Give it to a group: "
        "sudo groupadd -f rapl; sudo usermod -aG rapl $USER; and then either, with systemd, "
        f"printf '{rules}\\n' | sudo tee /etc/tmpfiles.d/rapl.conf; sudo systemd-tmpfiles --create; or, with "
        f"sysfsutils, printf '{lines}\\n' | sudo tee -a /etc/sysfs.conf; sudo systemctl restart sysfsutils; and log in "
        "again. Or let root read and nobody else: --meter rapl@ssh://root@HOST."
    )


def listed(found: Sequence[Zone]) -> str:
    return ", ".join(zone.name for zone in found)
