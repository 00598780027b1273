"""Whatever is in MIMIC-CXR's annotation file: samples, counted skips, or one line that says why."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from fuzzing import (
    ANY,
    FEW,
    IMAGE,
    SPLIT,
    SPLITS_SPELT,
    TEXT,
    Outcomes,
    answers,
    check,
    often,
    regular,
    run,
    says,
    value,
)
from hypothesis import given
from hypothesis import strategies as st

from llava.data.mimic_cxr import convert as mimic_cxr

NEEDED = {
    "id": value(st.integers(0, 1000).map(str)),
    "report": value(TEXT),
    "image_path": value(st.one_of(IMAGE, st.lists(IMAGE, max_size=3))),
}
FIELDS = {
    "indication": value(TEXT),
    "History": value(TEXT),
    "clinical": value(st.fixed_dictionaries({}, optional={"comparison": TEXT})),
}
ENTRY = st.fixed_dictionaries(NEEDED, optional=FIELDS)
FLAT = st.fixed_dictionaries({**NEEDED, "split": value(SPLIT)}, optional=FIELDS)
ANNOTATION = often(
    st.one_of(
        st.lists(value(FLAT), min_size=1, max_size=4),
        st.dictionaries(SPLIT, value(st.lists(value(ENTRY), max_size=3)), min_size=1, max_size=3),
    ),
    ANY,
)


def expected(content):
    """[((split, image), report)] that must be written; None where something odd was drawn."""
    found = []
    lists = content if isinstance(content, dict) else {None: content}
    for key, entries in lists.items():
        for entry in entries if isinstance(entries, list) else [None]:
            if not isinstance(entry, dict) or "id" not in entry:
                return None
            images = entry["image_path"]
            images = [images] if isinstance(images, str) else images
            texts = [entry["report"], entry.get("indication", ""), entry.get("History", "")]
            nested = entry.get("clinical", {})
            if not isinstance(images, list) or not isinstance(nested, dict):
                return None
            strings = [*texts, *images, *nested.values(), entry["id"], entry.get("split", "train")]
            split = entry.get("split", key)
            if not all(isinstance(text, str) for text in strings) or not entry["id"].isdecimal():
                return None
            if not regular(*texts, *nested.values(), split=split):
                return None
            if not all(regular(image=image) for image in images):
                return None
            report = says(entry["report"])
            found += [((SPLITS_SPELT[split], image), report) for image in images if report]
    return found


def test_any_annotation_file():
    with Outcomes() as outcomes:

        @FEW
        @given(content=ANNOTATION, cut=often(st.none(), st.integers(0, 200)))
        def convert(content, cut):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "annotation.json"
                path.write_text(json.dumps(content)[:cut], encoding="utf-8")
                status, samples, out = run(mimic_cxr, folder, f"--annotation={path}")
                outcomes.add(status)
                check(status, samples, out, folder)
                wanted = expected(content) if cut is None and content else None
                if wanted is not None:
                    repeated = max(Counter(key for key, _ in wanted).values(), default=0) > 1
                    assert status == 0 or repeated or not wanted
                    assert status == 2 or answers(samples) == dict(wanted)

        convert()
