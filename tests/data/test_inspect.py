"""What `inspect` says of a dataset, and what it refuses."""

import numpy as np
import pytest
from made_up_entries import entry, save
from PIL import Image

from llava.data.inspect.command import main
from llava.data.inspect.statistics import histogram, shared, summarise
from llava.data.samples.reading import load_entries


def sample(number, patient, answer="The lungs are clear. No effusion."):
    image = f"p10/{patient}/s5/{number}.png"
    return entry(id=str(number), image=image, answer=answer)


@pytest.fixture
def tokenizer(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def folder(tmp_path):
    """train and test of a conversion; val is empty, as some collections have it."""
    data = tmp_path / "data"
    large = "There is a large left pleural effusion, increased since the prior study. " * 8
    train = [sample(1, "p10000001"), sample(2, "p10000001", large), sample(3, "p10000002")]
    save(data / "train_llave_llada.json", train)
    save(data / "val_llave_llada.json", [])
    save(data / "test_llave_llada.json", [sample(4, "p10000003")])
    return data


def test_counts_lengths_labels_and_phrases_are_printed(folder, tokenizer, capsys):
    assert main([str(folder), "--tokenizer", tokenizer, "--canvas", "100"]) == 0
    out = capsys.readouterr().out
    assert "3 entries: 3 with 1 image(s); 2 patients by their paths; 1 answers repeat" in out
    assert "1 exceed a canvas of 100 (33.3%)" in out
    row = next(line.split() for line in out.splitlines() if "Pleural Effusion" in line)
    assert row == ["Pleural", "Effusion", "1", "0", "2"]
    assert "speak of an earlier examination: 1 (33.3%)" in out
    assert "increased 1" in out
    assert "0 patients in both" in out
    assert "1 answers in both" in out
    assert "val_llave" not in out


def test_a_patient_or_an_image_in_two_splits_is_an_error(folder, tokenizer, capsys):
    save(folder / "test_llave_llada.json", [sample(1, "p10000001"), sample(9, "p10000009")])
    assert main([str(folder), "--tokenizer", tokenizer]) == 1
    out = capsys.readouterr().out
    assert "ERROR: 1 patients in both (e.g. p10000001)" in out
    assert "ERROR: 1 images in both (e.g. p10/p10000001/s5/1.png)" in out


def test_lengths_are_the_tokenizers(tmp_path, tiny_tokenizer):
    path = save(tmp_path / "data.json", [entry(question="<image>\nWhy so?", answer="Clear lungs.")])

    def count(texts):
        return [len(ids) for ids in tiny_tokenizer(texts)["input_ids"]]

    found = summarise(load_entries(path, "."), count, lambda text: {})
    assert found.answer_tokens == [len(tiny_tokenizer("Clear lungs.<|im_end|>")["input_ids"])]
    assert found.question_tokens == [len(tiny_tokenizer("\nWhy so?")["input_ids"])]
    assert [found.exceeding(found.answer_tokens[0] - n) for n in (0, 1)] == [0, 1]
    assert (found.patients, found.without_patient) == (set(), 1)
    assert shared(found, found)["images"] == ["a.png"]


def test_the_bars_of_a_histogram_add_up():
    values = [1, 1, 2, 17, 40, 4000]
    lines = histogram(values)
    assert lines[0] == "  smallest 1, 50%: 17, 90%: 4000, 99%: 4000, largest 4000"
    counts = [int(line.split()[1]) for line in lines[1:]]
    assert sum(counts) == len(values)
    assert histogram([]) == ["  nothing"]


def test_the_picture_of_samples_is_drawn(folder, tokenizer, tmp_path, capsys):
    for number, patient in ((1, "p10000001"), (2, "p10000001"), (3, "p10000002")):
        path = tmp_path / f"images/p10/{patient}/s5/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 20), 60 * number, dtype=np.uint8)).save(path)
    flags = ["--image-folder", str(tmp_path / "images"), "--picture", str(tmp_path / "s.png")]
    assert main([str(folder), "--tokenizer", tokenizer, *flags]) == 0
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("L"))
    assert all((pixels == 60 * number).sum() > 1000 for number in (1, 2, 3))


def test_what_cannot_be_read_is_one_line(folder, tokenizer, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    cases = {
        "is a folder without a train_llave_llada.json": [str(tmp_path / "empty")],
        "does not exist; check data_path": [str(tmp_path / "none.json")],
        "cannot be loaded": [str(folder), "--tokenizer", str(tmp_path / "empty")],
    }
    for message, given in cases.items():
        assert main([given[0], "--tokenizer", tokenizer, *given[1:]]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
