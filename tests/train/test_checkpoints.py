"""Checkpoint folders: complete or absent; spare ones go, never the last nor the best."""

import json

import pytest

from llava.store import write_json
from llava.train.run import checkpoints


def write(run, step, content="weights"):
    partial = checkpoints.partial_folder(run, f"checkpoint-{step}")
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_text(content)
    checkpoints.complete(partial, checkpoints.checkpoint_folder(run, step))


def steps(run):
    return list(checkpoints.find_checkpoints(run))


def test_the_newest_by_step_is_the_last(tmp_path):
    for step in (100, 9, 20):
        write(tmp_path, step)
    assert checkpoints.last_checkpoint(tmp_path).name == "checkpoint-100"
    assert steps(tmp_path) == [9, 20, 100]


@pytest.mark.parametrize("harm", ["cut", "missing", "no list"])
def test_a_damaged_checkpoint_does_not_count(tmp_path, harm, caplog):
    write(tmp_path, 1)
    write(tmp_path, 2)
    weights = tmp_path / "checkpoint-2" / "model.safetensors"
    if harm == "cut":
        weights.write_text("weigh")
    elif harm == "missing":
        weights.unlink()
    else:
        (tmp_path / "checkpoint-2" / checkpoints.MANIFEST_FILE).unlink()
    assert checkpoints.last_checkpoint(tmp_path).name == "checkpoint-1"
    assert "checkpoint-2" in caplog.text
    write(tmp_path, 2, "again")
    assert checkpoints.last_checkpoint(tmp_path).name == "checkpoint-2"


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (None, None, [1, 2, 3, 4]),
        (2, None, [3, 4]),
        (2, 1, [1, 4]),
        (1, 1, [1, 4]),
        (1, 4, [4]),
        (3, 2, [2, 3, 4]),
    ],
)
def test_the_last_and_the_best_are_never_deleted(tmp_path, limit, best, kept):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    checkpoints.rotate(tmp_path, limit, best)
    assert steps(tmp_path) == kept


def test_the_best_is_the_lowest_among_those_that_exist():
    history = [
        {"step": 1, "eval_loss": 3.0},
        {"step": 2, "eval_loss": 1.0},
        {"step": 2, "loss": 0.1},
        {"step": 3, "eval_loss": 2.0},
    ]
    assert checkpoints.best_step([1, 2, 3], history, "eval_loss") == 2
    assert checkpoints.best_step([1, 3], history, "eval_loss") == 3
    assert checkpoints.best_step([4], history, "eval_loss") is None


def test_what_was_left_half_written_is_removed_and_nothing_else(tmp_path):
    write(tmp_path, 1)
    checkpoints.partial_folder(tmp_path, "checkpoint-2").mkdir()
    checkpoints.partial_folder(tmp_path, "run.json").write_text("{")
    write_json(tmp_path / "run.json", {"a": 1})
    checkpoints.remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "run.json"]
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
