"""A worker for the tests of several processes: light, so that starting it takes no time."""

import os
import sys
import time


class FewProcesses:
    """What `run_all` and the worker read of a plan."""

    def __init__(self, name):
        self.name, self.processes = name, 2


def answer_with_pid(plan, rank, listener, loaded):
    """Says who took a connection; rank 1 of a plan that `fails` ends."""
    listener.listen()
    loaded.release()
    if plan.name == "fails" and rank == 1:
        sys.exit(3)
    while True:
        connection, _ = listener.accept()
        time.sleep(0.05)
        connection.sendall(str(os.getpid()).encode())
        connection.close()
