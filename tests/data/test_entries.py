"""Conversations on disk as entries: lists, tables, mixtures, and every reason to refuse them."""

import json
import os
import pickle
from pathlib import Path

import pytest
from made_up_entries import entry, save

from llava.data.samples import json_stream
from llava.data.samples import reading as entries
from llava.data.samples.arrow import EntryTable
from llava.data.samples.mixture import Sampling, parse_sampling
from llava.data.samples.reading import load_entries

# ------------------------------------------------------------------ reading


def test_an_entry_keeps_its_id_images_and_turns(tmp_path):
    path = save(tmp_path / "data.json", [entry(), entry(image=["b/c.png"], id=7)])
    one, two = load_entries(path, tmp_path / "images")
    assert (one.id, one.images) == ("study-1", ("a.png",))
    assert (two.id, two.images) == ("7", ("b/c.png",))
    assert one.messages == tuple(entry()["conversations"])
    assert (one.image_folder, one.source) == (str(tmp_path / "images"), str(path))


def test_an_entry_without_images_needs_no_image_folder(tmp_path):
    raw = entry(question="Write a normal report.")
    del raw["image"]
    assert load_entries(save(tmp_path / "data.json", [raw]))[0].images == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": []}, "is a JSON dict, not a list of entries; convert it with"),
        ("text", "is a JSON str, not a list"),
        ([], "data.json' holds no entry"),
        (["text"], "entry number 0 is not an object"),
        ([entry(), entry(image="/etc/a.png")], "entry 'study-1', field 'image': '/etc/a.png' lea"),
        ([entry(image="p10/../../a.png")], "leaves the image folder; write it relative"),
        ([entry(image=3)], "field 'image': 3 is not a path or a list of paths"),
        ([entry(image=["a.png", None])], r"field 'image': \['a.png', None\] is not"),
        ([entry(answer="")], "entry 'study-1': turn 1: there is no answer"),
        ([entry() | {"conversations": entry()["conversations"][:1]}], "there is no answer"),
        ([entry() | {"conversations": None}], "'conversations' must be a list of turns; got None"),
        ([{"image": "a.png"}], "entry number 0: field 'conversations'"),
        (
            [entry() | {"conversations": [{"from": "user", "value": "<image>"}]}],
            "data.json', entry 'study-1': turn 0: unknown role 'from': 'user'; use 'human' or",
        ),
        ([entry(question="Describe.")], "0 <image> in the text for 1 images; write one per image"),
        ([entry(question="<image> <image>")], "2 <image> in the text for 1 images"),
        ([entry(image=[])], "1 <image> in the text for 0 images"),
    ],
)
def test_a_bad_file_names_itself_its_entry_the_field_and_the_remedy(tmp_path, content, message):
    path = save(tmp_path / "data.json", content)
    with pytest.raises(ValueError, match=message) as error:
        load_entries(path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[{", "[" * 100_000])
def test_a_file_that_is_not_json_is_named(tmp_path, text):
    path = tmp_path / "data.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"data.json' is not JSON"):
        load_entries(path)


@pytest.mark.parametrize("name", ["data.json", "data.yaml"])
def test_a_file_that_does_not_exist_or_is_not_text_is_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name}' does not exist; check data_path"):
        load_entries(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=f"{name}' is not"):
        load_entries(path)


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_json_lines_are_read_whatever_their_name_and_end_at_newlines_only(tmp_path, name, start):
    raw = [entry(answer="Clear.\u2028No\x1cfluid.", id="a"), entry(id="b")]
    path = tmp_path / name
    text = "\r\n\n".join(json.dumps(line, ensure_ascii=False) for line in raw)
    path.write_text(start + text, encoding="utf-8", newline="")
    found = load_entries(path, tmp_path)
    assert [e.id for e in found] == ["a", "b"]
    assert found[0].messages[1]["value"] == "Clear.\u2028No\x1cfluid."
    path.write_text(text.replace('"id"', "id"), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name}' is not JSON"):
        load_entries(path, tmp_path)


def test_images_without_an_image_folder_are_refused(tmp_path):
    path = save(tmp_path / "data.json", [entry()])
    with pytest.raises(ValueError, match="entry 'study-1' has images; give image_folder"):
        load_entries(path)


# ---------------------------------------------------------------- mixtures


def test_a_mixture_lists_datasets_relative_to_its_own_folder(tmp_path, monkeypatch):
    save(tmp_path / "a" / "one.json", [entry(id="one")])
    save(tmp_path / "b" / "two.json", [entry(id="two")] * 2)
    mixture = tmp_path / "mixtures" / "both.yml"
    mixture.parent.mkdir()
    mixture.write_text(
        "datasets:\n"
        "  - json_path: ../a/one.json\n    image_folder: ../a/images\n"
        f"  - json_path: {tmp_path}/b/two.json\n    image_folder: {tmp_path}/b\n"
    )
    monkeypatch.chdir(tmp_path / "a")
    found = load_entries(mixture)
    assert [e.id for e in found] == ["one", "two", "two"]
    folders = [e.image_folder for e in found]
    assert folders == [str(tmp_path / "mixtures" / "../a/images"), *[str(tmp_path / "b")] * 2]


def test_a_mixture_with_a_byte_order_mark_is_read(tmp_path):
    save(tmp_path / "a.json", [entry()])
    text = "\ufeffdatasets: [{json_path: a.json, image_folder: .}]"
    (tmp_path / "mix.yaml").write_text(text, encoding="utf-8")
    assert len(load_entries(tmp_path / "mix.yaml")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [", "is not YAML"),
        ("datasets: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("", "needs a key 'datasets' with a list"),
        ("- json_path: a.json", "needs a key 'datasets'"),
        ("dataset: [{json_path: a}]", "unknown key 'dataset'; did you mean 'datasets'"),
        ("datasets: []", "needs a key 'datasets' with a list"),
        ("datasets: [a.json]", r"datasets\[0\] needs a 'json_path'"),
        ("datasets: [{image_folder: x}]", r"datasets\[0\] needs a 'json_path'"),
        (
            "datasets: [{json_path: a.json, image_root: x}]",
            "unknown key 'image_root'; did you mean 'image_folder",
        ),
        (
            "datasets: [{json_path: a.json}]\nsampling: all",
            "unknown key 'sampling'; known: datasets, seed",
        ),
        ("datasets: [{json_path: a.json, image_folder: 5}]", "'image_folder': 5 is not a path"),
        ("datasets: [{json_path: mix.yaml}]", "'mix.yaml' is a YAML; list its datasets here"),
        ("datasets: [{json_path: a.json}]", "entry 'study-1' has images; give image_folder"),
    ],
)
def test_a_bad_mixture_names_itself_the_place_and_the_remedy(tmp_path, text, message):
    save(tmp_path / "a.json", [entry()])
    path = tmp_path / "mix.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_entries(path)


def numbered(tmp_path, count, name="data.json"):
    return save(tmp_path / name, [entry(id=str(n)) for n in range(count)])


def mixture_of(tmp_path, *samplings, seed=0):
    parts = [
        {"json_path": f"{n}.json", "image_folder": ".", **({"sampling": s} if s else {})}
        for n, s in enumerate(samplings)
    ]
    return save(tmp_path / "mix.yaml", {"datasets": parts, "seed": seed})  # JSON is YAML


def ids(sequence):
    return [e.id for e in sequence]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (None, ["0", "1", "2", "3", "4"]),
        ("all", ["0", "1", "2", "3", "4"]),
        ("first:40%", ["0", "1"]),
        ("first:1%", ["0"]),
        ("random:100%", ["0", "1", "2", "3", "4"]),
        ("weight:2", ["0", "1", "2", "3", "4"] * 2),
        (1, ["0", "1", "2", "3", "4"]),
    ],
)
def test_a_sampling_takes_its_share_in_the_order_of_the_file(tmp_path, sampling, expected):
    numbered(tmp_path, 5, "0.json")
    assert ids(load_entries(mixture_of(tmp_path, sampling))) == expected


def test_a_random_share_is_fixed_by_the_seed_and_grows_by_adding():
    rows = {share: Sampling("random", share).rows(1000, "0") for share in (0.1, 0.2, 1.0)}
    assert [len(r) for r in rows.values()] == [100, 200, 1000]
    assert set(rows[0.1]) < set(rows[0.2])
    assert rows[0.2] == sorted(rows[0.2]) == Sampling("random", 0.2).rows(1000, "0")
    assert rows[0.2] != Sampling("random", 0.2).rows(1000, "1")


def test_a_weight_repeats_all_rows_and_a_random_rest_once_more():
    rows = Sampling("weight", 2.5).rows(10, "0")
    assert len(rows) == 25
    assert {rows.count(n) for n in range(10)} == {2, 3}
    assert len(Sampling("weight", 0.3).rows(10, "0")) == 3


def test_several_samplings_are_one_sequence(tmp_path):
    for n in range(3):
        numbered(tmp_path, 4, f"{n}.json")
    found = load_entries(mixture_of(tmp_path, "first:50%", "weight:1.25", None))
    assert len(found) == 2 + 5 + 4
    assert [found[i].source for i in (0, 1, 2, 6, 7, -1)] == [
        str(tmp_path / f"{n}.json") for n in (0, 0, 1, 1, 2, 2)
    ]
    assert ids(found[7:9]) == ["0", "1"]
    with pytest.raises(IndexError):
        found[11]


@pytest.mark.parametrize(
    "sampling",
    [
        *("half", "first:0%", "first:-3%", "first:10", "random:101%", "random:nan%", "end:5%"),
        *("weight:0", "weight:1e9", -1, True, None, [], float("nan")),
    ],
)
def test_a_sampling_that_is_none_is_refused(sampling):
    with pytest.raises(ValueError, match=r"here, 'sampling': .* is none of all, first:10%"):
        parse_sampling(sampling, "here")


def test_an_image_folder_beside_a_yaml_is_refused(tmp_path):
    numbered(tmp_path, 1, "0.json")
    with pytest.raises(ValueError, match="names its own image folders; leave out"):
        load_entries(mixture_of(tmp_path, None), tmp_path)


# ------------------------------------------------------------------ tables


@pytest.fixture
def as_table(monkeypatch):
    """Every file counts as a long one, and is read in blocks of a few characters."""
    monkeypatch.setattr(entries, "TABLE_BYTES", 0)
    monkeypatch.setattr(json_stream, "BLOCK", 7)


def test_a_table_gives_the_entries_that_a_list_gives(tmp_path, monkeypatch):
    turns = [
        {"from": "human", "value": '<image>\n<image> Ä𝄞 "quoted"'},
        {"from": "gpt", "value": "Clear."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    several = {"image": ["b/c.png", "d.png"], "conversations": turns, "study_id": 50}
    text = {"conversations": turns[2:], "id": None}
    path = save(tmp_path / "data.json", [entry(), several, text])
    listed = load_entries(path, tmp_path)
    monkeypatch.setattr(entries, "TABLE_BYTES", 0)
    table = load_entries(path, tmp_path)
    assert isinstance(table, EntryTable)
    assert list(table) == listed == table[:3] == pickle.loads(pickle.dumps(table))[:]
    assert (table[-1], len(table)) == (listed[-1], 3)


def test_a_table_is_written_once_and_again_when_the_file_changes(tmp_path, as_table):
    path = numbered(tmp_path, 3)
    assert ids(load_entries(path, tmp_path)) == ["0", "1", "2"]
    place = tmp_path / ".data.json.arrow"
    written = place.stat().st_mtime_ns
    assert ids(load_entries(path, tmp_path / "other")) == ["0", "1", "2"]
    assert place.stat().st_mtime_ns == written
    save(path, [entry(id="x"), entry(id="y"), entry(id="z")])
    assert ids(load_entries(path, tmp_path)) == ["x", "y", "z"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".data.json.arrow", "data.json"]


@pytest.mark.parametrize("damage", [b"", b"no table", None])
def test_a_damaged_table_is_written_again(tmp_path, as_table, damage):
    path = numbered(tmp_path, 3)
    load_entries(path, tmp_path)
    place = tmp_path / ".data.json.arrow"
    place.write_bytes(place.read_bytes()[:40] if damage is None else damage)
    assert ids(load_entries(path, tmp_path)) == ["0", "1", "2"]


def test_a_table_that_cannot_be_written_is_kept_in_memory(tmp_path, as_table, capsys):
    path = numbered(tmp_path, 3)
    (tmp_path / ".data.json.arrow").mkdir()
    assert ids(load_entries(path, tmp_path)) == ["0", "1", "2"]
    assert "kept in memory" in capsys.readouterr().err


def test_a_table_refuses_what_a_list_refuses(tmp_path, as_table):
    path = save(tmp_path / "data.json", [entry(), entry(image="/etc/a.png")])
    with pytest.raises(ValueError, match="leaves the image folder"):
        load_entries(path, tmp_path)
    assert os.listdir(tmp_path) == ["data.json"]
    save(path, [entry()])
    with pytest.raises(ValueError, match="entry 'study-1' has images; give image_folder"):
        load_entries(path)


@pytest.mark.parametrize(
    "text",
    ["[] []", "[{}", "[{},]", "[{} {}]", "[{]", '[{"a": "\\ud8"}]', "[1.5.2]", "[tru]", "[,]"],
)
def test_broken_json_is_named_with_its_place(tmp_path, as_table, text):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"data.json' is not JSON: .*character \d+ of the file"):
        list(json_stream.read_list(path))


def test_blocks_of_any_length_give_the_same_elements(tmp_path, monkeypatch):
    content = [-12345, {"a": "ä" * 30, "b": [1, 2.5e3, None]}, {}, {"c": {"d": "\\"}}, -17, "x"]
    path = save(tmp_path / "data.json", content)
    for block in (1, 2, 3, 10, 1000):
        monkeypatch.setattr(json_stream, "BLOCK", block)
        assert list(json_stream.read_list(path)) == content


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "data").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_shipped_mixtures_are_valid(path):
    assert entries.read_mixture(path)
