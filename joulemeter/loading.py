"""Opens whatever holds a recording: a run directory, a zip of one, or another program's file or folder."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from joulemeter import registry, store
from joulemeter.capture import Recording
from joulemeter.errors import DataError, NotFoundError, UsageError

# A run of a day at 400 kB/s; more is not a run but an attack on the disk.
MAX_UNZIPPED_BYTES = 64 << 30


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """The recording at `path`, usable within the `with` block.

    Raises UsageError for what is no recording, DataError for a damaged one.
    """
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Give a run directory, a zip of one, or a recording file.")
    if path.is_dir() and store.is_run(path):
        yield store.open_run(path)
    elif path.is_file() and zipfile.is_zipfile(path) and (inside := _run_inside(path)) is not None:
        with tempfile.TemporaryDirectory(prefix="joulemeter-") as folder:
            _unpack(path, Path(folder))
            yield store.open_run(Path(folder) / inside)
    else:
        yield registry.reader_for(path).read(path)


def _run_inside(path: Path) -> PurePosixPath | None:
    """The folder within a zip that holds run.json; None if there is none."""
    with zipfile.ZipFile(path) as archive:
        found = [PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name == store.RUN]
    if len(found) > 1:
        raise UsageError(f"{path} holds {len(found)} runs.", "Zip one run directory at a time.")
    return found[0] if found else None


def _unpack(path: Path, folder: Path) -> None:
    """Regular files only, none outside `folder`, none larger than announced."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > MAX_UNZIPPED_BYTES:
            raise UsageError(f"{path} would unpack to more than {MAX_UNZIPPED_BYTES >> 30} GiB.")
        for member in members:
            target = (folder / member.filename).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise DataError(f"{path} holds a file that would land outside of it: {member.filename!r}.")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, target.open("wb") as sink:
                    while piece := source.read(1 << 20):
                        sink.write(piece)
            except (zipfile.BadZipFile, EOFError) as error:
                raise DataError(f"{path} is damaged at {member.filename!r} ({error}).") from error


def run_folder(path: Path) -> Path:
    """A run directory given as itself or as a file in it. Raises UsageError."""
    for candidate in (path, path.parent):
        if candidate.is_dir() and store.is_run(candidate):
            return candidate
    if not path.exists():
        raise NotFoundError(f"There is no {path}.")
    raise UsageError(f"{path} is not a run directory.")
