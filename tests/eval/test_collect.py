"""What lmms-eval left in the folder of a run: believed only when it is complete and matches."""

import json
import shutil
from pathlib import Path

import pytest

from llava.eval.documents import Document, read_documents
from llava.eval.predictions import read_predictions
from llava.eval.run import collect
from llava.eval.run.lmms_run import PREDICTIONS_FOLDER, RESULTS_FOLDER, TASK


@pytest.fixture
def documents(tiny_dataset) -> list[Document]:
    return read_documents(*tiny_dataset)[0]


@pytest.fixture
def finished(tmp_path, documents) -> Path:
    """The folder of a run as lmms-eval leaves it: two processes."""
    (tmp_path / PREDICTIONS_FOLDER).mkdir()
    for rank in range(2):
        rows = [
            {"id": d.id, "prediction": f"text {d.id}", "reference": d.reference}
            for d in documents[rank::2]
        ]
        write_rows(tmp_path, rank, rows)
    folder = tmp_path / RESULTS_FOLDER / "some_model"
    folder.mkdir(parents=True)
    results = {"results": {TASK: {"scored,none": len(documents)}}}
    (folder / "1_results.json").write_text(json.dumps(results))
    return tmp_path


def rank_file(run: Path, rank: int) -> Path:
    return run / PREDICTIONS_FOLDER / f"rank{rank}.jsonl"


def write_rows(run: Path, rank: int, rows: list[dict]) -> None:
    rank_file(run, rank).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(run: Path, rank: int) -> list[dict]:
    return [json.loads(line) for line in rank_file(run, rank).read_text().splitlines()]


def test_a_finished_run_is_merged_in_the_order_of_the_dataset(finished, documents):
    found = collect.collect(finished, documents, failure=None)
    assert [prediction.id for prediction in found] == [d.id for d in documents]
    assert read_predictions(finished) == found


def test_complete_results_outweigh_a_bad_end_of_the_processes(finished, documents):
    assert len(collect.collect(finished, documents, failure="aborted at exit")) == 7


def test_the_status_zero_of_lmms_eval_is_not_believed(finished, documents):
    shutil.rmtree(finished / RESULTS_FOLDER)
    with pytest.raises(collect.EvaluationError, match="it left 0 results files"):
        collect.collect(finished, documents, failure=None)
    with pytest.raises(collect.EvaluationError, match="lmms-eval failed: out of memory"):
        collect.collect(finished, documents, failure="out of memory")


def drop_first(rows: list[dict]) -> None:
    del rows[0]


def repeat_first(rows: list[dict]) -> None:
    rows.append({**rows[0], "id": "study-1"})


def rename_first(rows: list[dict]) -> None:
    rows[0] = {**rows[0], "id": "stranger"}


def change_reference(rows: list[dict]) -> None:
    rows[0]["reference"] = "another text"


def lose_text(rows: list[dict]) -> None:
    del rows[0]["prediction"]


def number_for_text(rows: list[dict]) -> None:
    rows[0]["prediction"] = 3.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_first, "1 ids have no prediction: 'study-0'"),
        (repeat_first, "1 ids are predicted more than once: 'study-1'"),
        (
            rename_first,
            "no prediction: 'study-0'; 1 ids are not samples of the dataset: 'stranger'",
        ),
        (change_reference, "1 ids have another reference than the dataset: 'study-0'"),
        (lose_text, "'study-0' lacks an id, a prediction or a reference"),
        (number_for_text, "'study-0': prediction is 3.5; it must be text"),
    ],
)
def test_predictions_that_do_not_match_the_dataset_are_refused(
    finished, documents, change, message
):
    rows = read_rows(finished, 0)
    change(rows)
    write_rows(finished, 0, rows)
    with pytest.raises(collect.EvaluationError, match=message):
        collect.collect(finished, documents, failure=None)
    assert not (finished / "predictions.jsonl").exists()


def test_a_report_of_which_half_a_line_was_written_is_missing(finished, documents):
    path = rank_file(finished, 1)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(collect.EvaluationError, match="have no prediction: 'study-5'"):
        collect.collect(finished, documents, failure=None)


def test_fewer_counted_samples_than_documents_are_refused(finished, documents):
    path = next((finished / RESULTS_FOLDER).glob("**/*_results.json"))
    path.write_text(path.read_text().replace('"scored,none": 7', '"scored,none": 6'))
    with pytest.raises(collect.EvaluationError, match="counted 6 samples of 7"):
        collect.collect(finished, documents, failure=None)
