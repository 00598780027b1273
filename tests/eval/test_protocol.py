"""Datasets described by a YAML."""

import pytest

from llava.eval.protocol import read_task

BASE = "include: mimic_cxr.yaml\nprocess_results: !function utils.process_results\n"


def test_the_project_s_own_tasks_state_their_data_and_protocol():
    for name in ("mimic_cxr", "iu_xray"):
        task = read_task(name)
        assert task.data_path.name == "test_llave_llada.json"
        assert task.data_path.parent.name in ("data", "iu_xray")
        assert task.stated_for(task.data_path)["section"] != "not stated"


def test_a_new_yaml_is_a_new_dataset(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        BASE + "task: mine\nmetadata:\n  data: {data_path: d/test.json, image_folder: d/images}\n"
        "  protocol: {section: impression}\n"
    )
    task = read_task("mine", tmp_path)
    assert task.data_path == (tmp_path / "d" / "test.json").resolve()
    assert task.image_folder == (tmp_path / "d" / "images").resolve()
    assert task.stated_for(task.data_path)["section"] == "impression"


def test_what_a_yaml_states_is_not_said_of_other_data(tmp_path):
    task = read_task("mimic_cxr")
    stated = task.stated_for(tmp_path / "val_llave_llada.json")
    assert stated == {"split": "val", "section": "not stated", "cleaning": "not stated"}
    assert task.stated_for(tmp_path / "reports.json")["split"] == "not stated"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "metadata: {data: {path: x}}",
            "unknown key 'path'; did you mean 'data_path'",
        ),
        ("metadata: {protocol: {split: 3}}", "metadata.protocol.split is 3; it must be text"),
        ("a: [", "is not YAML"),
        ("metadata: 5", "metadata is 5; it must be a mapping"),
        ("metadata: {data: [x]}", r"metadata.data is \['x'\]; it must be a mapping"),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(f"task: mine\n{text}\n")
    with pytest.raises(ValueError, match=message):
        read_task("mine", tmp_path)


def test_an_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"no task 'chexpert'.*known: iu_xray, mimic_cxr"):
        read_task("chexpert")


def test_a_yaml_with_a_byte_order_mark_is_read(tmp_path):
    text = "task: mine\nmetadata: {protocol: {split: val}}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8-sig")
    assert read_task("mine", tmp_path).split == "val"
