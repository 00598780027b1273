"""The sections of a report, by every heading style. All text is made up."""

import textwrap
import time

import pytest

from llava.data.mimic_cxr.sections import parse_sections

BOTH = ("findings", "impression")


def sections_of(text):
    return parse_sections(textwrap.dedent(text))


def test_the_usual_headings_give_their_sections():
    found = sections_of("""
                                     FINAL REPORT
     EXAMINATION:  CHEST (PA AND LAT)

     INDICATION:  ___F with a cough  // eval

     TECHNIQUE:  Two views

     COMPARISON:  None.

     HISTORY:  Smoker.

     FINDINGS:

     Clear lungs.

     Normal heart.

     IMPRESSION:

     1. Nothing acute.
     2. Nothing old.
    """)
    assert found.texts == {
        "examination": "CHEST (PA AND LAT)",
        "indication": "___F with a cough  // eval",
        "technique": "Two views",
        "comparison": "None.",
        "history": "Smoker.",
        "findings": "Clear lungs.\n\nNormal heart.",
        "impression": "1. Nothing acute.\n2. Nothing old.",
    }
    assert (found.view, found.last_paragraph) == ("", "")


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        *[(h, "findings") for h in ("FINDINGS", "Findings", "FINDING", "FIDNINGS", "FINDNGS")],
        *[(h, "impression") for h in ("IMPRESSION", "Impression", "IMPRESSIONS", "CONCLUSION")],
        *[(h, "impression") for h in ("IMPRESSON", "IMPRESION", "OPINION", "Conclusions")],
        *[(h, "indication") for h in ("INDICATION", "INDICATIONS", "REASON FOR EXAM")],
        *[(h, "indication") for h in ("Reason for examination", "CLINICAL INDICATION")],
        *[(h, "indication") for h in ("INDICATOIN", "REASON FOR THIS STUDY")],
        *[(h, "comparison") for h in ("COMPARISON", "COMPARISONS", "COMPARSION", "Comparison")],
        *[(h, "comparison") for h in ("COMPARISON STUDY", "COMPARISON EXAM")],
        *[(h, "history") for h in ("HISTORY", "CLINICAL HISTORY", "Clinical information")],
        *[(h, "technique") for h in ("TECHNIQUE", "TECHNIQES", "Technique")],
        *[(h, "examination") for h in ("EXAMINATION", "EXAM", "STUDY", "TYPE OF EXAMINATION")],
        *[(h, "examination") for h in ("PROCEDURE", "EXAMINAITON")],
    ],
)
def test_a_heading_in_any_spelling_is_its_section(heading, section):
    assert (
        sections_of(f" {heading}:  One.\n\n IMPRESSION: Two.\n").texts[section].startswith("One.")
    )


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS: Clear. LUNGS: clear.\n BONES AND SOFT TISSUES: intact.",
        "FINDINGS: Clear.\n Right lung: clear.\n The findings: none.\n Heart: normal.",
        "FINDINGS: Seen at 5:23.\n\n2. Second: clear.\n",
    ],
)
def test_what_is_no_section_stays_in_the_text(text):
    assert sections_of(text).texts == {"findings": text.removeprefix("FINDINGS: ").strip()}


def test_headings_within_a_line_and_without_a_colon_are_found():
    assert sections_of("COMPARISON: None. FINDINGS: Clear. IMPRESSION: Normal.").texts == {
        "comparison": "None.",
        "findings": "Clear.",
        "impression": "Normal.",
    }
    assert sections_of(" FINDINGS\n Clear.\n IMPRESSION\n Normal.").texts == {
        "findings": "Clear.",
        "impression": "Normal.",
    }


def test_one_heading_for_both_gives_both_once():
    found = sections_of("FINDINGS AND IMPRESSION: Clear.")
    assert found.texts == {"findings": "Clear.", "impression": "Clear."}
    assert found.report(BOTH) == ("Clear.", "findings and impression")


def test_a_first_read_and_addenda_are_no_part_of_the_report():
    found = sections_of("""
     WET READ: ___ 5:23 PM
      Large effusion.
     ______________________________________________________________________________
                                     FINAL REPORT
     FINDINGS: Clear.

     IMPRESSION: Normal.

     NOTIFICATION: Told to Dr. ___.

                                     FINAL ADDENDUM
     ADDENDUM: More.
    """)
    assert found.texts == {"findings": "Clear.", "impression": "Normal."}


def test_the_text_under_a_view_stands_in_for_findings_only_where_there_are_none():
    view = "PORTABLE AP CHEST RADIOGRAPH: Clear.\n\nIMPRESSION: Normal."
    assert sections_of(view).report(("findings",)) == ("Clear.", "view heading")
    assert sections_of(view).report(BOTH) == ("Normal.", "impression")
    both = "CHEST, TWO VIEWS: Done.\n\nFINDINGS: Clear."
    assert sections_of(both).report(("findings",)) == ("Clear.", "findings")


@pytest.mark.parametrize(
    "text",
    [
        "First paragraph.\n\nClear lungs.",
        "HISTORY: Cough.\n\nCOMPARISON: None.\n\nClear lungs.",
        "COMPARISON:\n\nClear lungs.",
        "INDICATION: Cough.\n ____________\n\n \n Clear lungs.",
    ],
)
def test_without_a_heading_of_a_report_its_last_paragraph_is_marked(text):
    found = sections_of(text)
    assert found.report(("findings",)) == ("Clear lungs.", "last paragraph")
    assert "Clear" not in str(found.texts)


def test_a_report_never_becomes_context():
    found = sections_of("COMPARISON: None.\n\nClear lungs.\n\nIMPRESSION: Normal.")
    assert found.texts == {"comparison": "None.", "impression": "Normal."}
    assert found.report(("findings",)) == ("", "")


def test_a_context_field_below_its_heading_is_kept_where_findings_have_their_own():
    found = sections_of("HISTORY:\n\nCough.\n\nFINDINGS:\n\nClear.")
    assert found.texts == {"history": "Cough.", "findings": "Clear."}


@pytest.mark.parametrize("text", ["", " \n \n", "FINDINGS:\n\n", "___", "INDICATION: Cough."])
def test_a_report_that_says_nothing_is_empty(text):
    assert sections_of(text).report(BOTH) == ("", "")


def test_a_long_report_of_anything_is_parsed_in_linear_time():
    for unit in (" ", "A ", "A", "\n", "\n ", "FINDINGS:\n\n", ". ", ":. A", "____\n"):
        begin = time.process_time()
        parse_sections(unit * (200_000 // len(unit)))
        assert time.process_time() - begin < 2, unit
