"""The state of a process after a run."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
from torch.utils.data import DataLoader
from llava.train.run.guard import end_workers_at_exit, leave_signals_to_the_parent
end_workers_at_exit()
settings = {"num_workers": 1, "worker_init_fn": leave_signals_to_the_parent}
loader = DataLoader(range(4), persistent_workers=True, **settings)
unfinished = iter(DataLoader(range(4), **settings))
print(len(list(loader)), int(next(unfinished)))
"""


def test_a_process_ends_though_its_loaders_workers_ignore_the_signal_to():
    """Without help, `multiprocessing` waits for them at exit for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert (ended.stdout, ended.stderr) == ("4 0\n", "")
