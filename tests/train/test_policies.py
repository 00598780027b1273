"""Policies of a run: unreadable samples, NaN or Inf losses, changed settings."""

import json
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import losses, not_a_number, weights

from llava.data.samples.dataset import ReportDataset
from llava.train.llada_trainer import LLaDATrainer
from llava.train.run import exits
from llava.train.train import main

SHORT = ("--num_train_epochs", "1", "--mm_tunable_parts", "mm_mlp_adapter")


@pytest.fixture
def broken_data(tmp_path, mixed_data):
    """The dataset with one file that is not an image, and one entry without an answer."""
    entries = json.loads(mixed_data.read_text())
    entries[4]["image"] = "broken.png"
    broken = mixed_data.parent / "broken.png"
    broken.write_bytes(b"no image")
    yield tmp_path / "broken.json", entries
    broken.unlink()


@pytest.fixture
def one_broken(broken_data):
    path, entries = broken_data
    path.write_text(json.dumps(entries))
    return path


def test_a_sample_that_cannot_be_read_ends_the_run_and_is_named(
    tmp_path, command, one_broken, capsys
):
    assert main(command(tmp_path / "run", *SHORT, data=one_broken)) == exits.USAGE
    message = capsys.readouterr().err
    assert "study-4" in message
    assert "--on_bad_sample skip" in message


def test_skipping_it_counts_it_and_trains_as_if_it_were_not_there(
    tmp_path, command, one_broken, mixed_data, monkeypatch, caplog
):
    """The reference reads the same samples in the same order, and gives the bad one no weight."""
    more = (*SHORT, "--on_bad_sample", "skip")
    assert main(command(tmp_path / "skipped", *more, data=one_broken)) == 0
    history = json.loads((tmp_path / "skipped" / "trainer_state.json").read_text())["log_history"]
    assert [entry["bad_samples"] for entry in history if "loss" in entry][-1] == 1
    assert "study-4" in caplog.text

    original = LLaDATrainer.get_batch_samples

    def without_study_4(self, *arguments):
        found, count = original(self, *arguments)
        for batch in found:
            chosen = (batch["sample_index"] == 4) & (batch["weight"] == 1)
            batch["weight"][chosen] = 0
            count -= int(chosen.sum())
        return found, count

    monkeypatch.setattr(LLaDATrainer, "get_batch_samples", without_study_4)
    assert main(command(tmp_path / "reference", *SHORT)) == 0
    assert losses(tmp_path / "skipped") == pytest.approx(losses(tmp_path / "reference"), rel=1e-5)


def test_the_preflight_reports_all_problems_at_once_and_trains_nothing(
    tmp_path, command, broken_data, capsys
):
    path, entries = broken_data
    entries[7]["conversations"][1]["value"] = " "
    entries[9]["image"] = "../outside.png"
    path.write_text(json.dumps(entries))
    more = ("--check_data", "--dataloader_num_workers", "1")
    assert main(command(tmp_path / "run", *more, data=path)) == exits.USAGE
    message = capsys.readouterr().err
    assert "3 of 13 entries have a problem" in message
    for name in ("study-4", "study-7", "study-9"):
        assert f"entry '{name}'" in message
    assert not (tmp_path / "run").exists()


def test_the_preflight_passes_a_sound_dataset(tmp_path, command, mixed_data, capsys):
    arguments = command(tmp_path / "run", "--check_data", "--eval_data_path", mixed_data)
    assert main(arguments) == exits.DONE
    assert capsys.readouterr().out.count("13 entries, all of them can be read") == 2


def test_the_preflight_refuses_a_dataset_without_entries(tmp_path, command, capsys):
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    assert main(command(tmp_path / "run", "--check_data", data=empty)) == exits.USAGE
    assert "it has no entries" in capsys.readouterr().err


@pytest.fixture
def poisoned(monkeypatch):
    """The image of study-5 is NaN."""
    read = not_a_number(ReportDataset.__getitem__, 5)
    monkeypatch.setattr(ReportDataset, "__getitem__", read)


def poisoned_step(run_folder, trainer_seed=42) -> int:
    from llava.train.batches import GlobalBatches

    draws = [
        step
        for step, batch in enumerate(GlobalBatches(13, 8, trainer_seed).epoch(0))
        if 5 in [draw.index for draw in batch if draw.real]
    ]
    return draws[0] + 1


def test_a_non_finite_loss_stops_naming_step_samples_and_last_checkpoint(
    tmp_path, command, poisoned, capsys
):
    more = (*SHORT, "--num_train_epochs", "2", "--save_steps", "1")
    assert main(command(tmp_path / "run", *more)) == exits.NONFINITE
    message = capsys.readouterr().err
    step = poisoned_step(tmp_path)
    assert f"step {step}: non-finite loss, in study-5; the batch is " in message
    assert "checkpoint yet" in message if step == 1 else f"checkpoint-{step - 1}" in message
    assert not (tmp_path / "run" / f"checkpoint-{step}").exists()


def test_skipping_such_a_step_counts_it_and_leaves_the_weights(tmp_path, command, poisoned):
    more = (*SHORT, "--max_steps", "2", "--save_steps", "1", "--on_nonfinite", "skip")
    assert main(command(tmp_path / "run", *more)) == exits.DONE
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    logged = [entry["nonfinite_steps"] for entry in state["log_history"] if "loss" in entry]
    assert logged[-1] == 1
    final = weights(tmp_path / "run")
    assert all(value.isfinite().all() for value in final.values())
    step = poisoned_step(tmp_path)
    if step == 2:
        before = weights(tmp_path / "run" / "checkpoint-1")
        assert all(torch.equal(final[key], before[key]) for key in before)
    else:
        after = weights(tmp_path / "run" / "checkpoint-1")
        assert any(not torch.equal(final[key], after[key]) for key in after)


def test_another_topology_may_continue_a_run_and_other_settings_only_when_told(
    tmp_path, command, capsys, caplog
):
    run = tmp_path / "run"
    assert main(command(run, *SHORT, "--save_steps", "1")) == 0
    shutil.rmtree(run / "checkpoint-2")
    (run / "finished.json").unlink()
    changed = ("--learning_rate", "1e-3")
    assert main(command(run, *SHORT, *changed)) == exits.USAGE
    message = capsys.readouterr().err
    assert "learning_rate: 0.002 before, 0.001 now" in message
    assert "--resume_changed" in message
    split = ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")
    assert main(command(run, *SHORT, *split, "--resume_changed", *changed)) == 0
    assert "per_device_train_batch_size: 8 before, 4 now" in caplog.text
    assert "learning_rate: 0.002 before, 0.001 now" in caplog.text
    history = json.loads((run / "run_history.json").read_text())
    assert [start["resumed_from"] for start in history] == [None, "checkpoint-1"]
    assert [start["arguments"]["learning_rate"] for start in history] == [2e-3, 1e-3]


def test_a_changed_dataset_is_a_difference(tmp_path, command, mixed_data, capsys):
    data = tmp_path / "data.json"
    shutil.copy(mixed_data, data)
    assert main(command(tmp_path / "run", *SHORT, data=data)) == 0
    (tmp_path / "run" / "finished.json").unlink()
    data.write_text(data.read_text().replace("pneumothorax", "effusion"))
    assert main(command(tmp_path / "run", *SHORT, data=data)) == exits.USAGE
    assert "data_sha256" in capsys.readouterr().err


def test_optimizer_state_is_read_from_the_runs_own_folder_only(tmp_path, command, capsys):
    assert main(command(tmp_path / "one", *SHORT, "--save_steps", "1")) == 0
    elsewhere = ("--resume_from_checkpoint", tmp_path / "one" / "checkpoint-1")
    assert main(command(tmp_path / "two", *SHORT, *elsewhere)) == exits.USAGE
    assert "is outside output_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--dataloader_drop_last", "true"), "--dataloader_drop_last"),
        (("--auto_find_batch_size", "true"), "--auto_find_batch_size"),
        (("--on_nonfinite", "skip", "--deepspeed", "zero2.json"), "needs --bf16 true"),
    ],
)
def test_options_that_the_loop_cannot_honour_are_refused(tmp_path, command, capsys, more, message):
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    more = [tmp_path / each if each == "zero2.json" else each for each in more]
    with pytest.raises(SystemExit):
        main(command(tmp_path / "run", *more))
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def validated(tmp_path_factory, command, mixed_data):
    """A run with validation, in batches of 3, reported to TensorBoard; trained with `uniform`."""
    output = tmp_path_factory.mktemp("validated") / "run"
    more = ("--eval_data_path", mixed_data, "--eval_strategy", "steps", "--eval_steps", "1")
    more += ("--save_steps", "1", "--save_total_limit", "1", "--per_device_eval_batch_size", "3")
    more += ("--report_to", "tensorboard", "--sample_reports", "3", "--answer_canvas", "8")
    arguments = command(output, *SHORT, *more, "--loss_weighting", "uniform")
    assert main(arguments) == 0
    return output


def evaluate(checkpoint, batch_size, command, mixed_data, output, *options) -> float:
    """The validation loss of a checkpoint's weights, taken anew."""
    from llava.train.assembly import build_model, build_trainer
    from llava.train.options.parsing import parse_arguments

    more = ("--eval_data_path", mixed_data, "--per_device_eval_batch_size", batch_size)
    arguments = parse_arguments(
        command(output, *SHORT, *more, "--pretrain_mm_mlp_adapter", checkpoint, *options)
    )
    return build_trainer(arguments, build_model(arguments)).evaluate()["eval_loss"]


def test_validation_gives_the_same_number_twice_in_any_batch_size_and_under_any_objective(
    validated, command, mixed_data, tmp_path
):
    history = json.loads((validated / "trainer_state.json").read_text())["log_history"]
    logged = [entry["eval_loss"] for entry in history if "eval_loss" in entry][-1]
    assert evaluate(validated, 3, command, mixed_data, tmp_path) == pytest.approx(logged, rel=1e-6)
    assert evaluate(validated, 5, command, mixed_data, tmp_path) == pytest.approx(logged, rel=1e-5)
    other = ("--complementary", "false", "--end_of_text_weight", "0.5")
    again = evaluate(validated, 3, command, mixed_data, tmp_path, *other)
    assert again == pytest.approx(logged, rel=1e-6)


def test_tensorboard_gets_losses_figures_and_sample_reports_with_their_images(validated):
    (events,) = validated.rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events.parent), size_guidance={"images": 0, "tensors": 0})
    board.Reload()
    tags = board.Tags()
    scalars = {tag.split("/")[-1] for tag in tags["scalars"]}
    wanted = {"loss", "grad_norm", "tokens_per_second", "data_wait_share", "memory_gb"}
    assert wanted | {f"loss_t_quartile_{n}" for n in range(1, 5)} <= scalars
    assert any(tag.endswith("loss") and tag.startswith("eval") for tag in tags["scalars"])
    assert [tag for tag in tags["images"] if tag.startswith("sample/")]
    texts = [tag for tag in tags["tensors"] if tag.startswith("sample/study-")]
    assert len(texts) == 3
    page = board.Tensors("sample/study-0/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "**Reference**" in page
    assert "    The lungs are clear." in page


def test_the_best_and_the_last_checkpoint_survive_a_limit_of_one(validated):
    history = json.loads((validated / "trainer_state.json").read_text())["log_history"]
    scores = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    best = min(scores, key=scores.get)
    kept = {path.name for path in validated.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best}", f"checkpoint-{max(scores)}"}
