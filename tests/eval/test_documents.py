"""The samples of an evaluation: which study they belong to."""

import json

import pytest
from PIL import Image

from llava.eval.documents import read_documents


@pytest.mark.parametrize(
    ("image", "extra", "study"),
    [
        ("p10/p10000032/s50414267/x.png", {}, "s50414267"),
        ("p10/p10000032/s50414267/x.png", {"study_id": 7}, "7"),
        ("files/s1/x.png", {}, "the-id"),
    ],
)
def test_a_study_is_named_by_the_entry_else_its_path_else_the_id(tmp_path, image, extra, study):
    (tmp_path / image).parent.mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / image)
    turns = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "Clear."}]
    entry = {"id": "the-id", "image": image, "conversations": turns, **extra}
    (tmp_path / "test.json").write_text(json.dumps([entry]))
    (document,), _ = read_documents(tmp_path / "test.json", tmp_path)
    assert document.study_id == study
    assert document.listed_images == (image,)
    assert document.images == (str(tmp_path / image),)
