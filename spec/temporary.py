"""Folders in which files are made before they get their names; what killed processes left of such is removed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".rnnzoo-"


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in another one, removed in the end. Raises OSError where none can be made."""
    sweep(parent)
    folder, lock = _locked(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the folders of processes that are no longer there: those of our own that nobody has locked."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove(Path(entry))


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):  # in use, of somebody else, or gone by now
        lock = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _locked(parent: Path) -> tuple[Path, int]:
    """A new folder and its lock, which the system opens when the process ends in any way."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder, os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a file system without locks, of which nothing is swept either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else another process has swept it before it was locked
            return folder, lock
        os.close(lock)
