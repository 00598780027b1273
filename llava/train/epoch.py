"""Tells the training dataset which epoch it is in, for what it draws anew in each.

By a callback, before the epoch's workers start: accelerate forwards an epoch to the sampler or to
the dataset, not to both.
"""

from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TellEpoch(TrainerCallback):
    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader,
        **_: object,
    ) -> None:
        train_dataloader.dataset.set_epoch(int(state.epoch or 0))
