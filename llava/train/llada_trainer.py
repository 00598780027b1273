"""The Hugging Face Trainer with what masked diffusion needs: noise, learning rates, saving."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import Noise, row_seed, seeded_noise
from llava.model.builder import Loaded, load_projector, save_checkpoint, save_projector
from llava.train.muon import MuonWithAdamW, is_hidden_matrix

EVALUATION_STEP = -1
"""Step that seeds the noise of every evaluation: the same noise, so the same number, each time."""


class LLaDATrainer(Trainer):
    """Trains a `LlavaQwenForMaskedDiffusion`.

    loaded: the model with its tokenizer and image processor, saved together.
    learning_rates: of the parameters whose name starts with a key; others use args.learning_rate.
    muon_lr: above 0, the matrices inside the layers are trained with Muon at this learning rate.
    projector_only: save (and resume from) the projector alone, as stage 1 does.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        learning_rates: dict[str, float] | None = None,
        muon_lr: float = 0.0,
        projector_only: bool = False,
        **trainer_arguments: Any,
    ) -> None:
        self.loaded, self.projector_only = loaded, projector_only
        self.learning_rates, self.muon_lr = learning_rates or {}, muon_lr
        super().__init__(model=loaded.model, **trainer_arguments)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss under noise that is a function of (seed, step, sample), not of the process."""
        inputs = dict(inputs)
        samples = inputs.pop("sample_index").tolist()
        noise = self._noise(inputs["labels"], samples)
        outputs = model(**inputs, noise=noise)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _noise(self, labels: Tensor, samples: list[int]) -> Noise:
        step = self.state.global_step if self.model.training else EVALUATION_STEP
        seeds = [row_seed(self.args.seed, step, sample) for sample in samples]
        return seeded_noise(labels != IGNORE_INDEX, seeds)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One parameter group per learning rate and weight decay."""
        if self.optimizer is not None:
            return self.optimizer
        model = self.model if model is None else model
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            decay = self.args.weight_decay if name in decayed else 0.0
            muon = self.muon_lr > 0 and is_hidden_matrix(name, parameter)
            rate = self.muon_lr if muon else self._learning_rate_of(name)
            groups.setdefault((muon, rate, decay), []).append(parameter)
        self.optimizer = self._optimizer_of(model, groups)
        return self.optimizer

    def _optimizer_of(
        self, model: nn.Module, groups: dict[tuple[bool, float, float], list[nn.Parameter]]
    ) -> torch.optim.Optimizer:
        matrices, others = (
            [
                {"params": parameters, "lr": rate, "weight_decay": decay}
                for (muon, rate, decay), parameters in groups.items()
                if muon == wanted
            ]
            for wanted in (True, False)
        )
        if matrices:
            return MuonWithAdamW(matrices, others)
        optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
        return optimizer_class(others, **settings)

    def _learning_rate_of(self, name: str) -> float:
        for prefix, rate in self.learning_rates.items():
            if name.removeprefix("module.").startswith(prefix):
                return rate
        return self.args.learning_rate

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if not self.args.should_save:
            return
        if not self.projector_only:
            save_checkpoint(folder, self.loaded, state_dict)
            return
        prefix = "mm_projector."
        state = self.model.state_dict() if state_dict is None else state_dict
        save_projector(
            folder,
            self.loaded.model.config,
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
        )

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self.projector_only:
            load_projector(self.loaded.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
