"""The process in which an implementation is checked: work in, answers out, both pickled, over its own pipes."""

import contextlib
import faulthandler
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..spec.errors import BackendError, RnnZooError
from .declared import declaration
from .diagnosis import diagnosed
from .expected import share
from .outcomes import SECONDS, run
from .raised import described
from .worker_process import Work

OURS = 600.0  # seconds for what the suite computes itself, the implementation apart
DIAGNOSIS = 60.0  # and for a diagnosis, its last run apart, where nobody set the seconds of an item
GRACE = 10.0  # longer than an item: a program is given up where it is asked, which tells more

Send = Callable[[Any], None]


def main() -> None:
    """Do the work on standard input; what a framework prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(answer: Any) -> None:
        data = pickle.dumps(answer)
        answers.write(struct.pack("<Q", len(data)) + data)
        answers.flush()

    with open(sys.argv[1], "w") as dump:
        faulthandler.enable(dump, all_threads=False)
        faulthandler.register(signal.SIGUSR1, dump, all_threads=False)
        work = pickle.load(sys.stdin.buffer)
        try:
            _answer(work, send)
        except RnnZooError as error:
            send(error)
        except Exception as error:  # of the suite's own code, or of a backend's outside an item
            send(BackendError(f"{work.implementation.name}: expected results, got an error: {described(error)}"))
        finally:
            faulthandler.disable()
            faulthandler.unregister(signal.SIGUSR1)


def _answer(work: Work, send: Send) -> None:
    share(work.folder)
    backend = work.implementation.load(work.seconds)
    limit = (work.seconds or SECONDS) + (GRACE if work.implementation.is_program else 0.0)
    items = list(work.items)
    if work.table:
        send(limit)
        declared = declaration(backend, work.chosen, work.table, quick=work.quick)
        send(declared)
        items += declared.further

    @contextlib.contextmanager
    def aside() -> Iterator[None]:
        send(OURS)
        yield
        send(limit)

    diagnose = work.diagnose
    for item in items:
        send(limit)
        outcome = run(backend, item, aside)
        send(outcome)  # before the diagnosis, in which a broken backend may break again
        if outcome.verdict == "failed" and not outcome.ended and diagnose > 0:
            diagnose -= 1
            send(limit + (work.seconds or DIAGNOSIS))
            send(diagnosed(backend, outcome))


if __name__ == "__main__":
    main()
