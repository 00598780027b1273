"""Whole studies as samples: all views with their roles, and the study before. Invented texts."""

import pytest

from llava.constants import QUESTION
from llava.data.prompt import role_of
from llava.data.samples.reading import load_entries

CLEAR, FLUID = "The lungs are clear.", "Small left effusion."


def entry(*names, study=1, report=CLEAR, **fields):
    return {
        "id": names[0],
        "report": report,
        "image_path": [f"p10/s5/{name}.jpg" for name in names],
        "study_id": study,
        "subject_id": 7,
        **fields,
    }


@pytest.fixture
def whole_studies(convert_annotation):
    """Converts entries of a split: (status, its samples, stdout, stderr)."""

    def convert(entries, *flags, split="train"):
        flags = ("--per-study", "all-views", *flags)
        status, written, out, err = convert_annotation({split: entries}, *flags)
        return status, written.get(split), out, err

    return convert


def question(sample):
    return sample["conversations"][0]["value"]


@pytest.mark.parametrize(
    ("view", "role"),
    [
        ("PA", "Frontal"),
        ("ap ", "Frontal"),
        ("AP  AXIAL", "Frontal"),
        ("LATERAL", "Lateral"),
        ("LL", "Lateral"),
        ("SWIMMERS", "View"),
        ("", "View"),
    ],
)
def test_a_view_position_gives_the_word_before_the_image(view, role):
    assert role_of(view) == role


def test_all_views_of_a_study_stand_in_one_question(whole_studies):
    views = ["PA", "LATERAL", None]
    given = entry("a1", "a2", "a3", view_position=views, indication="Cough")
    _, (sample,), _, _ = whole_studies([given])
    assert sample == {
        "id": "s1",
        "image": [f"p10/s5/a{n}.jpg" for n in (1, 2, 3)],
        "study_id": "s1",
        "context": {"indication": "Cough"},
        "conversations": [
            {
                "from": "human",
                "value": f"Frontal: <image>\nLateral: <image>\nView: <image>\n{QUESTION} "
                "Following clinical context: Indication: Cough",
            },
            {"from": "gpt", "value": CLEAR},
        ],
    }


def test_entries_of_one_image_each_are_put_together_by_their_study(whole_studies, tmp_path):
    entries = [
        entry("a1", view_position=["LATERAL"]),
        entry("a2", study=2, view_position="AP", report=FLUID),
        entry("a3", view_position=["AP"]),
        entry("a3", view_position=["AP"]),
    ]
    _, samples, out, _ = whole_studies(entries)
    assert [sample["id"] for sample in samples] == ["s1", "s2"]
    assert samples[0]["image"] == ["p10/s5/a1.jpg", "p10/s5/a3.jpg"]
    assert "skipped images, repeats an earlier sample: 1" in out
    assert out.splitlines()[1].split() == ["train", "4", "4", "0", "4", "3", "1"]
    assert "train_llave_llada.json: 2 samples" in out
    path = tmp_path / "out" / "train_llave_llada.json"
    assert [len(e.images) for e in load_entries(path, tmp_path / "images")] == [2, 1]


def test_an_entry_without_a_study_is_a_study_of_its_own(whole_studies):
    entries = [entry("a1", study=None), entry("a2", study=None)]
    _, samples, _, _ = whole_studies(entries)
    assert [(s["id"], len(s["image"])) for s in samples] == [("a1", 1), ("a2", 1)]


def dated(name, study, date, time="120000", **more):
    fields = {"study_date": date, "study_time": time, "view_position": ["PA"], **more}
    return entry(name, study=study, report=f"Report {study}.", **fields)


def test_the_latest_study_before_of_the_same_subject_is_shown_with_its_report(whole_studies):
    entries = [
        dated("a3", 3, "21800102", "101500.5", indication="Fever"),
        dated("a1", 1, "21791231"),
        dated("a2", 2, "21800102", "94511.25"),
        dated("a4", 4, "21700101", subject_id=8),
    ]
    _, samples, _, _ = whole_studies(entries, "--prior")
    by_id = {sample["id"]: sample for sample in samples}
    assert by_id["s1"]["image"] == ["p10/s5/a1.jpg"]
    assert question(by_id["s1"]) == f"Frontal: <image>\n{QUESTION}"
    assert by_id["s2"]["image"] == ["p10/s5/a2.jpg", "p10/s5/a1.jpg"]
    assert by_id["s3"]["image"] == ["p10/s5/a3.jpg", "p10/s5/a2.jpg"]
    assert question(by_id["s3"]) == (
        f"Frontal: <image>\nPrior frontal: <image>\n{QUESTION} "
        "Following clinical context: Indication: Fever Prior report: Report 2."
    )
    assert by_id["s3"]["context"] == {"indication": "Fever", "prior_report": "Report 2."}
    assert by_id["s4"]["image"] == ["p10/s5/a4.jpg"]


def test_the_prior_image_is_a_frontal_one_where_there_is_one(whole_studies):
    before = entry("a1", "a2", view_position=["LATERAL", "AP"], study_date="21790101")
    now = entry("a3", study=2, view_position=["LL"], study_date=21790102)
    _, samples, _, _ = whole_studies([before, now], "--prior")
    assert samples[1]["image"] == ["p10/s5/a3.jpg", "p10/s5/a2.jpg"]
    assert question(samples[1]).startswith("Lateral: <image>\nPrior frontal: <image>\n")


def test_a_study_at_the_same_time_or_without_a_report_is_no_study_before(whole_studies):
    same = [dated("a1", 1, "21790101"), dated("a2", 2, "21790101")]
    unread = dated("a3", 3, "21780101") | {"report": ""}
    _, samples, out, _ = whole_studies([*same, unread], "--prior")
    assert [len(sample["image"]) for sample in samples] == [1, 1]
    assert "skipped entries, no report text: 1" in out


def test_no_study_of_another_split_is_shown(convert_annotation):
    content = {"train": [dated("a1", 1, "21790101")], "test": [dated("a2", 2, "21790102")]}
    _, written, _, _ = convert_annotation(content, "--per-study", "all-views", "--prior")
    assert written["test"][0]["image"] == ["p10/s5/a2.jpg"]


def test_what_cannot_be_used_is_counted_and_adds_up(whole_studies):
    entries = [
        entry("a1", "gone"),
        entry("a2", study=2, report=None),
        entry("missing", study=3),
        entry("a3", study=3),
        entry("lost", study=4),
    ]
    _, samples, out, _ = whole_studies(entries)
    assert [sample["id"] for sample in samples] == ["s1", "s3"]
    assert out.splitlines()[1].split() == ["train", "5", "3", "2", "6", "2", "4"]


@pytest.mark.parametrize(
    ("entries", "flags", "message"),
    [
        ([entry("a1"), entry("a2", report=FLUID)], (), "study s1 has different texts for 'report'"),
        (
            [entry("a1", history="x"), entry("a2", history="y")],
            (),
            "study s1 has different texts for 'history': 'x' and 'y'; keep one",
        ),
        ([entry("a1"), entry("a2", subject_id=8)], (), "different texts for 'subject'"),
        ([entry("a1", view_position=["PA", "LL"])], (), "'view_position' is ['PA', 'LL'] for 1 im"),
        ([entry("a1", study_date="2180-01-01")], (), "'study_date' is '2180-01-01' and"),
        ([entry("a1")], ("--prior",), "--prior needs 'subject_id', 'study_date' and"),
        (
            [entry("a1", study=None), entry("a1", study=None)],
            (),
            "two studies called 'a1'; give every entry its study_id",
        ),
    ],
)
def test_entries_that_contradict_each_other_are_named(whole_studies, entries, flags, message):
    status, written, _, err = whole_studies(entries, *flags)
    assert (status, written) == (2, None)
    assert message in err


def test_a_prior_study_needs_all_views(convert_annotation):
    status, _, _, err = convert_annotation({"train": [entry("a1")]}, "--prior")
    assert status == 2
    assert "it needs --per-study all-views" in err
