"""One clear error where a file is cut by somebody else while a map of it is read."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@contextlib.contextmanager
def ended_where_cut(path: Path) -> Iterator[None]:
    """Within, the process ends with status 2 and an error where a map turns out to be longer than its file.

    Nothing goes on from there, and a handler of Python's own would never be run, as the system repeats the read.
    """

    def end(number: int) -> None:
        os.write(2, f"rnnzoo: {path}: was cut off while it was read; nothing was written\n".encode())
        os._exit(2)

    handler, set_handler = HANDLER(end), ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = set_handler(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(signal.SIGBUS, before)
