"""The process in which an implementation is checked: items in, outcomes out, both pickled, over its own pipes."""

import os
import pickle
import signal
import struct
import sys

from ..spec.errors import RnnZooError
from .expected import share
from .outcomes import Outcome, run
from .suite import diagnosed


def main() -> None:
    """Run the items on standard input; what a framework prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    implementation, items, diagnose, folder = pickle.load(sys.stdin.buffer)
    share(folder)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(answer: Outcome | RnnZooError) -> None:
        data = pickle.dumps(answer)
        answers.write(struct.pack("<Q", len(data)) + data)
        answers.flush()

    try:
        backend = implementation.load()
    except RnnZooError as error:
        return send(error)
    for item in items:
        try:
            outcome = run(backend, item)
        except RnnZooError as error:
            return send(error)
        send(outcome)  # before the diagnosis, in which a broken backend may break again
        if outcome.verdict == "failed" and diagnose > 0:
            diagnose -= 1
            send(diagnosed(backend, outcome))


if __name__ == "__main__":
    main()
