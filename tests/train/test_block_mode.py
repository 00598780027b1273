"""Training in mode `block`: held-out losses, resuming, adapters, and what the run writes."""

import json

import pytest
import torch
from training_runs import losses

from llava.diffusion.config import SamplingConfig
from llava.train.llada_trainer import LLaDATrainer
from llava.train.train import main
from llava.writing.writer import ReportWriter, Request

BLOCK = ("--attention_mode", "block", "--block_length", "4", "--whole_canvas_share", "0.25")
PROMPT = "<image>\nDescribe the findings."


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command, mixed_data):
    output = tmp_path_factory.mktemp("block") / "run"
    more = ("--eval_data_path", mixed_data, "--eval_strategy", "steps", "--eval_steps", "2")
    more += ("--stratified_t", "true", "--t_power", "3", "--loss_weighting", "uniform")
    assert main(command(output, *BLOCK, *more, "--num_views", "4")) == 0
    return output


def test_the_held_out_bound_and_the_exact_next_token_loss_are_logged(trained):
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert len(evaluations) == 2
    for entry in evaluations:
        assert 0 < entry["eval_next_token"] < 10
        assert entry["eval_loss"] > 0
    assert evaluations[1]["eval_next_token"] < evaluations[0]["eval_next_token"]


def test_the_checkpoint_knows_its_mode_and_writes_by_every_decoder(trained, mixed_data):
    config = json.loads((trained / "config.json").read_text())
    assert (config["attention_mode"], config["block_length"]) == ("block", 4)
    writer = ReportWriter.from_pretrained(trained, device="cpu")
    request = Request((mixed_data.parent / "1.png",), PROMPT)
    texts = {}
    for decoder in ("causal", "speculative", "blocks", "canvas", "auto"):
        sampling = SamplingConfig(gen_length=16, block_length=4, decoder=decoder)
        (report,) = writer.write([request], sampling)
        assert 1 <= report.nfe <= 16
        assert len(report.token_ids) == len(report.confidence)
        texts[decoder] = report.text
    assert texts["speculative"] == texts["causal"] == texts["auto"]
    template = Request((mixed_data.parent / "1.png",), PROMPT, template="The heart is [3].")
    (filled,) = writer.write([template], SamplingConfig(gen_length=32))
    assert filled.text.startswith("The heart is")


def test_a_stopped_run_goes_on_with_the_same_losses(tmp_path, command, monkeypatch):

    assert main(command(tmp_path / "whole", *BLOCK, "--save_steps", "1")) == 0
    original = LLaDATrainer.training_step

    def failing(self, *arguments, **named):
        if self.state.global_step == 2:
            raise RuntimeError("cut")
        return original(self, *arguments, **named)

    monkeypatch.setattr(LLaDATrainer, "training_step", failing)
    with pytest.raises(RuntimeError, match="cut"):
        main(command(tmp_path / "run", *BLOCK, "--save_steps", "1"))
    monkeypatch.undo()
    assert main(command(tmp_path / "run", *BLOCK, "--save_steps", "1")) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_adapters_and_checkpointed_layers_train_in_mode_block(tmp_path, command):
    more = ("--lora_rank", "2", "--mm_tunable_parts", "mm_mlp_adapter,mm_language_model")
    plain = tmp_path / "plain", tmp_path / "checkpointed"
    for output, checkpointing in zip(plain, ("false", "true"), strict=True):
        arguments = command(output, *BLOCK, *more, "--gradient_checkpointing", checkpointing)
        assert main(arguments) == 0
    assert losses(plain[1]) == pytest.approx(losses(plain[0]), rel=1e-5)
    writer = ReportWriter.from_pretrained(plain[0], device="cpu")
    assert writer.model.config.attention_mode == "block"
    assert torch.isfinite(torch.tensor(losses(plain[0]))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--whole_canvas_share", "0.5"), "needs --attention_mode block, not prefix"),
        (("--causal_prefix", "true"), "needs --attention_mode block, not prefix"),
        (("--growing_blocks", "true"), "needs --attention_mode block, not prefix"),
        (("--answer_fill", "block"), "needs --attention_mode block, not prefix"),
        ((*BLOCK, "--answer_fill", "block"), "no canvas for --whole_canvas_share 0.25"),
        (("--draft_weight", "1"), "--attention_mode block and --causal_weight above 0, not prefix"),
        ((*BLOCK, "--draft_weight", "1", "--causal_weight", "0"), "above 0, not block and 0.0"),
        (("--masked_block_share", "0.5"), "needs --attention_mode block, not prefix"),
        ((*BLOCK, "--masked_block_share", "0.5"), "give --loss_weighting uniform"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, command, capsys, options, message):
    with pytest.raises(SystemExit) as refused:
        main(command(tmp_path / "run", *options))
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_the_terms_for_fewer_passes_train_and_leave_the_held_out_bound_alone(
    tmp_path, command, trained, mixed_data
):
    """With a learning rate of 0: the loss of training gains the terms, the held-out one nothing."""
    more = ("--model_name_or_path", trained, "--vision_tower", "", "--learning_rate", "0")
    more += ("--eval_data_path", mixed_data, "--eval_strategy", "steps", "--eval_steps", "2")
    more += ("--loss_weighting", "uniform")
    terms = ("--draft_weight", "0.5", "--certainty_weight", "0.5")
    found = {}
    for name, options in (("plain", ()), ("terms", terms)):
        assert main(command(tmp_path / name, *BLOCK, *more, *options)) == 0
        state = json.loads((tmp_path / name / "trainer_state.json").read_text())
        evaluations = [entry for entry in state["log_history"] if "eval_loss" in entry]
        found[name] = (
            losses(tmp_path / name),
            [(entry["eval_loss"], entry["eval_next_token"]) for entry in evaluations],
        )
    assert all(a > b for a, b in zip(found["terms"][0], found["plain"][0], strict=True))
    assert found["terms"][1] == found["plain"][1]
    config = json.loads((tmp_path / "terms/config.json").read_text())
    assert (config["draft_weight"], config["certainty_weight"]) == (0.5, 0.5)


def test_growing_blocks_are_those_of_the_step(tmp_path, command, monkeypatch):
    seen, original = [], LLaDATrainer._noise

    def noise(self, labels, extra):
        drawn = original(self, labels, extra)
        seen.append((self.state.global_step, int(drawn[0].block_length[0])))
        return drawn

    monkeypatch.setattr(LLaDATrainer, "_noise", noise)
    grown = ("--attention_mode", "block", "--block_length", "4", "--growing_blocks", "true")
    assert main(command(tmp_path / "run", *grown, "--max_steps", "6")) == 0
    assert dict(seen) == {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4}
