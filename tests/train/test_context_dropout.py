"""Context dropout in a run: anew in every epoch and in every worker, never in evaluation."""

import json

import pytest
import torch

from llava.constants import IGNORE_INDEX
from llava.data.prompt import context_text, split_context
from llava.data.samples.context_dropout import ContextDropout
from llava.train.assembly import build_model, build_trainer
from llava.train.options.parsing import parse_arguments

QUESTION = "Describe. Following clinical context: Indication: a History: b Technique: c"


@pytest.fixture
def trainer(tmp_path, tiny_backbones):
    """Of a dataset of 12 samples that differ in their number only, read in `workers` workers."""
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "Clear."}]
    entries = [{"id": str(number), "conversations": turns} for number in range(12)]
    (tmp_path / "data.json").write_text(json.dumps(entries))

    def build(workers):
        arguments = parse_arguments(
            [
                *("--model_name_or_path", str(tiny_backbones.language)),
                *("--vision_tower", str(tiny_backbones.vision), "--use_cpu", "true"),
                *("--data_path", str(tmp_path / "data.json"), "--report_to", "none"),
                *("--eval_data_path", str(tmp_path / "data.json")),
                *("--output_dir", str(tmp_path / "run"), "--num_train_epochs", "2"),
                *("--per_device_train_batch_size", "4", "--answer_canvas", "8"),
                *("--context_dropout", "0.5", "--save_strategy", "no", "--seed", "5"),
                *("--dataloader_num_workers", str(workers)),
                *("--dataloader_persistent_workers", str(workers > 0)),
            ]
        )
        return build_trainer(arguments, build_model(arguments))

    return build


@pytest.mark.parametrize("workers", [0, 1])
def test_every_epoch_draws_its_own_context_in_every_worker(trainer, workers, monkeypatch):
    running = trainer(workers)
    seen, loss = [], running.compute_loss

    def spy(model, inputs, *arguments, **named):
        for ids, labels, index in zip(
            inputs["input_ids"], inputs["labels"], inputs["sample_index"], strict=True
        ):
            prompt = ids[: int((labels != IGNORE_INDEX).long().argmax())]
            seen.append((int(running.state.epoch or 0), int(index), prompt.tolist()))
        return loss(model, inputs, *arguments, **named)

    monkeypatch.setattr(running, "compute_loss", spy)
    running.train()
    assert len(seen) == 24
    dropout = ContextDropout(0.5, seed=5)
    decode = running.loaded.tokenizer.decode
    for position, (_, index, ids) in enumerate(seen):
        epoch = position // 12
        head, context = split_context(QUESTION)
        left = head + context_text(dropout.kept(context, epoch, index))
        assert f"{left}<|im_end|>" in decode(ids)


def test_evaluation_sees_all_of_the_context(trainer):
    running = trainer(0)
    whole = running.eval_dataset[3]["input_ids"]
    assert QUESTION in running.loaded.tokenizer.decode(whole)
    lengths = {len(running.train_dataset[i]["input_ids"]) for i in range(12)}
    assert min(lengths) < len(whole)
    again = running.eval_dataset
    again.set_epoch(1)
    assert torch.equal(again[3]["input_ids"], whole)
