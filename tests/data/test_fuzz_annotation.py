"""Whatever is in MIMIC-CXR's annotation file: samples, counted skips, or one line that says why."""

import json
import tempfile
from pathlib import Path

from fuzzing import ANY, FEW, IMAGE, SPLIT, TEXT, check, often, run, value
from hypothesis import given
from hypothesis import strategies as st

from llava.data.mimic_cxr import convert as mimic_cxr

FIELDS = {
    "id": value(st.integers(0, 1000).map(str)),
    "report": value(TEXT),
    "image_path": value(st.one_of(IMAGE, st.lists(IMAGE, max_size=3))),
    "indication": value(TEXT),
    "History": value(TEXT),
    "clinical": value(st.fixed_dictionaries({}, optional={"comparison": TEXT})),
}
ENTRY = st.fixed_dictionaries({}, optional=FIELDS)
ANNOTATION = often(
    st.one_of(
        st.lists(
            value(st.fixed_dictionaries({"split": value(SPLIT)}, optional=FIELDS)), max_size=4
        ),
        st.dictionaries(SPLIT, value(st.lists(value(ENTRY), max_size=3)), max_size=3),
    ),
    ANY,
)


@FEW
@given(content=ANNOTATION, cut=often(st.none(), st.integers(0, 200)))
def test_any_annotation_file(content, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.json"
        path.write_text(json.dumps(content)[:cut], encoding="utf-8")
        check(*run(mimic_cxr, folder, f"--annotation={path}"), folder)
