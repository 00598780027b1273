"""What cleaning takes from a text, and what it must leave: lines, labels, sides, signs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data.conversion.cleaning import (
    clean_field,
    clean_report,
    join_sections,
    name_text,
    remove_marks,
    unwrap,
)
from llava.eval.labeler import label_report
from llava.text import plain_text

WRAPPED = """There is a moderate right pleural effusion, which has increased since the prior
study. The cardiac silhouette is enlarged. There is no evidence of pneumothorax or
Kerley B lines; a PICC is seen with its tip in the superior vena cava. There is no
free air"""


@pytest.mark.parametrize(
    ("text", "unwrapped"),
    [
        (WRAPPED, WRAPPED.replace("\n", " ")),
        ("The heart\nis normal.", "The heart is normal."),
        ("Clear.\nNormal heart.\n\nNo fluid.", "Clear. Normal heart. No fluid."),
        ("Compared to the prior,\nthere is no change", "Compared to the prior, there is no change"),
        ("There is no\nPICC", "There is no PICC"),
        ("No effusion\nCardiomegaly\nAtelectasis", "No effusion\nCardiomegaly\nAtelectasis"),
        ("- No effusion\n- Cardiomegaly", "- No effusion\n- Cardiomegaly"),
        ("1. Nothing acute.\n2. Old fractures.", "1. Nothing acute.\n2. Old fractures."),
        ("no effusion\ncardiomegaly", "no effusion\ncardiomegaly"),
        ("PLEURA: No effusion\nHEART: Enlarged", "PLEURA: No effusion\nHEART: Enlarged"),
        ("Pleura: no effusion\nHeart: enlarged", "Pleura: no effusion\nHeart: enlarged"),
        ("No effusion\nmoderate edema", "No effusion\nmoderate edema"),
        ("No effusion,\nCardiomegaly", "No effusion,\nCardiomegaly"),
        ("No effusion\n\n\nCardiomegaly\n", "No effusion\nCardiomegaly"),
        ("", ""),
    ],
)
def test_a_line_end_stays_where_it_separates_and_goes_where_it_wraps(text, unwrapped):
    assert unwrap(text) == unwrapped


LINES = st.lists(
    st.one_of(
        st.sampled_from(["No effusion", "cardiomegaly", "- Edema", "Heart: big", "Clear.", "the"]),
        st.text(st.sampled_from("ab AB.,-1(é"), max_size=70),
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_cleaning_twice_changes_nothing_and_no_word_is_lost(lines):
    text = "\n".join(lines)
    once = unwrap(text)
    assert unwrap(once) == once
    assert once.split() == text.split()
    report = clean_report(text, "X{4,}")
    assert clean_report(report, "X{4,}") == report


ODD = [
    "- No effusion\n- Cardiomegaly\n- Bibasilar atelectasis",
    "No effusion\nCardiomegaly\nBibasilar atelectasis",
    "1) No effusion\n2) Cardiomegaly\n3) Bibasilar atelectasis",
    "No effusion.<br>Cardiomegaly.<br/>Bibasilar atelectasis",
    "No consolidation &amp; effusion. Heart &lt; 50% of the chest.",
    "No pneumothorax._x000D_\nSmall effusion._x000D_\n",
    "No pneumo\u00adthorax. Cardio\u200bmegaly.",
    "No e\ufb00usion. In\ufb01ltrate at the right base.",
    "PLEURA: No effusion\nHEART: Cardiomegaly\nLUNGS: Bibasilar atelectasis",
    "No effusion \u2014 cardiomegaly persists \u2014 bibasilar atelectasis",
    "No&nbsp;effusion.\u2028Cardiomegaly.",
    "No pneumothorax.\r\nModerate right\r\npleural effusion.",
    "No pneumothorax<br>moderate effusion",
]


@pytest.mark.parametrize("text", ODD)
def test_conversion_does_not_change_the_labels_of_a_report(text):
    assert label_report(clean_report(text)) == label_report(plain_text(text))


def test_a_list_keeps_the_labels_that_its_lines_have_alone():
    # One sentence would deny all three.
    cleaned = clean_report("- No effusion\n- Cardiomegaly\n- Bibasilar atelectasis")
    labels = [label_report(line.removeprefix("- ")) for line in cleaned.split("\n")]
    assert [found["Pleural Effusion"] for found in labels] == [0, None, None]
    assert [found["Cardiomegaly"] for found in labels] == [None, 1, None]
    assert [found["Atelectasis"] for found in labels] == [None, None, 1]


@pytest.mark.parametrize(
    "text",
    [
        *("No report.", "No report available", "Report not available.", "N/A", "n/a.", "nil"),
        *("Not dictated", "NOT AVAILABLE", "There is no report on file.", "Report pending", "-"),
        *("See impression.", "Please see the report above", "(none)", "&nbsp;", "_x000D_", "<br>"),
        *("...", "null", "None.", "***"),
    ],
)
def test_a_cell_that_only_says_that_there_is_no_report_is_no_report(text):
    assert clean_report(text) == ""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("None available.", "None available."),  # says that there is no earlier examination
        ("Cough &amp;\nfever", "Cough & fever"),
        ("None.", ""),
        ("_x000D_", ""),
        ("&nbsp;", ""),
    ],
)
def test_a_clinical_field_is_one_line_and_may_say_that_there_is_none(text, cleaned):
    assert clean_field(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        *("No findings.", "Negative.", "Normal", "No acute findings", "No data to suggest edema."),
        *("No report of trauma. Clear lungs.", "Not enlarged heart.", "No change", "+", "1+"),
        "Missing the left breast. See impression for the nodule.",
    ],
)
def test_a_short_report_is_still_a_report(text):
    assert clean_report(text) == (text if text != "+" else "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("right-XXXX effusion", "right effusion"),
        ("RUL-XXXX nodule and R-XXXX", "RUL nodule and R"),
        ("non-XXXX chest", "chest"),
        ("- XXXX effusion", "- effusion"),
        ("XXXX, clear", "clear"),
        ("measures XXXX.5 cm", "measures cm"),
        ("No effusion.XXXX Cardiomegaly", "No effusion. Cardiomegaly"),
        ("-ve for XXXX effusion", "-ve for effusion"),
    ],
)
def test_a_mark_takes_no_side_sign_or_list_mark_with_it(text, cleaned):
    assert remove_marks(text, "X{4,}") == cleaned


def test_sections_without_a_full_stop_do_not_run_together():
    assert join_sections(["No effusion", "Cardiomegaly"]) == "No effusion\nCardiomegaly"
    assert join_sections(["Clear.", "", "Normal."]) == "Clear. Normal."


@pytest.mark.parametrize(
    ("value", "name"),
    [(7, "7"), (50.0, "50"), (" s1 ", "s1"), (None, ""), (float("nan"), ""), ("None", "")],
)
def test_a_name_is_text_or_a_whole_number_or_absent(value, name):
    assert name_text(value, "here") == name


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {}])
def test_what_is_not_a_name_is_refused(value):
    with pytest.raises(ValueError, match="here is "):
        name_text(value, "here")


def test_the_cases_of_a_table_keep_their_labels(shared, tmp_path, capsys):
    from llava.data import table
    from llava.data.conversion.rows import read_rows

    path = shared / "cases" / "table" / "odd.csv"
    if not path.is_file():
        pytest.skip("no cases in ../shared")
    flags = ["--image-column=file", "--report-column=text", "--split-column=split"]
    folder = f"--image-root={path.parent / 'img'}"
    assert table.main([f"--table={path}", folder, f"--output={tmp_path}", *flags]) == 0
    written = json.loads((tmp_path / "test_llave_llada.json").read_text(encoding="utf-8"))
    found = {sample["image"]: sample["conversations"][1]["value"] for sample in written}
    rows = {row["file"]: row["text"] for _, row in read_rows(path, ["file", "text"])}
    assert found.keys() == rows.keys()
    for image, text in rows.items():
        assert label_report(found[image]) == label_report(plain_text(text)), image
