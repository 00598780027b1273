"""Read every entry as the training will, and report all problems at once (`--check_data`).

Minutes on a CPU, before days on GPUs. It trains and writes nothing.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import TrainingArguments

from llava.data.samples.dataset import ReportDataset
from llava.data.samples.entry import Entry, read_entries
from llava.data.samples.mixture import is_mixture, read_mixture
from llava.train.run.processes import gathered

_AT_ONCE = 8
File = tuple[Path, str | Path | None]
"""A conversations JSON and its image folder."""


class _Readings(Dataset):
    """The problem of each entry of a share of the dataset; empty when there is none."""

    def __init__(self, samples: ReportDataset, share: range) -> None:
        self.samples, self.share = samples, share

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, place: int) -> str:
        try:
            self.samples[self.share[place]]
        except (ValueError, OSError) as error:
            return str(error)
        return ""


def list_files(data_path: str, image_folder: str) -> list[File]:
    """The files of a data path: itself, or those that a YAML lists; each in full, and once."""
    if not data_path:
        return []
    path = Path(data_path)
    if not is_mixture(path):
        return [(path, image_folder or None)]
    return list(dict.fromkeys((part.json_path, part.image_folder) for part in read_mixture(path)))


def check_files(
    files: Sequence[File],
    dataset_of: Callable[[Sequence[Entry]], ReportDataset],
    training: TrainingArguments,
) -> bool:
    """True when every entry of every file can be read; else the problems are printed.

    training: how many processes and loader workers share the work.
    """
    sound = True
    for path, image_folder in files:
        if not path.is_file():
            raise FileNotFoundError(f"dataset {str(path)!r} does not exist; check data_path")
        refused: list[str] = []
        entries = list(read_entries(path, image_folder, refused))
        unread = gathered(_read_all(dataset_of(entries), training))
        problems = refused + [problem for part in unread for problem in part]
        if not refused and not entries:
            problems = ["it has no entries"]
        if training.process_index == 0:
            _report(path, problems, len(refused) + len(entries))
        sound = sound and not problems
    return sound


def _read_all(samples: ReportDataset, training: TrainingArguments) -> list[str]:
    """This process's share of the dataset, through its loader's workers."""
    share = range(training.process_index, len(samples), training.world_size)
    loader = DataLoader(
        _Readings(samples, share),
        batch_size=_AT_ONCE,
        num_workers=training.dataloader_num_workers,
        collate_fn=list,
    )
    problems = []
    with tqdm(total=len(share), unit="entry", disable=training.process_index > 0) as bar:
        for readings in loader:
            problems += [reading for reading in readings if reading]
            bar.update(len(readings))
            bar.set_postfix_str(f"{len(problems)} problems")
    return problems


def _report(path: Path, problems: Sequence[str], entries: int) -> None:
    if not problems:
        print(f"{path}: {entries} entries, all of them can be read")
        return
    print(f"{path}: {len(problems)} of {entries} entries have a problem", file=sys.stderr)
    for problem in problems:
        print(f"- {problem}", file=sys.stderr)
