"""What the fuzz tests are made of: strategies for nearly right files, and what must hold of a run.

Hypothesis makes broken JSON, wrong types, missing keys, NaN, odd Unicode, huge texts, columns in
another order or swapped, split names in every spelling. Each goes through the command line of its
collection: a row that is right, a counted skip, or one line that says why. Where nothing odd was
drawn, the test knows what must be written (`says`, `regular`), and `Outcomes` holds that both good
and refused files were among the examples.
"""

import contextlib
import csv
import gzip
import io
import json
import re
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from llava.data.conversion.output import split_path
from llava.data.conversion.splits import SPLITS
from llava.data.samples.reading import load_entries

FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def often(strategy, rarely):
    """Mostly what belongs there, so that examples get past the first check."""
    return st.integers(0, 39).flatmap(lambda n: rarely if n == 39 else strategy)


ODD_TEXT = st.one_of(
    st.sampled_from(
        [
            *("<image>", "<|im_end|>", "a\0b", "\ud800", "\u202eabc", "e\u0301", "\ufeff", '"'),
            *("x" * 5000, "line\r\nbreak", "../../etc/passwd", "/etc/passwd", "../a.png"),
        ]
    ),
    st.text(max_size=12),
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_subnormal=False), ODD_TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)
PLAIN_TEXTS = ["The lungs are clear.", "Effusion, 5 cm.", "心影正常。", "a,b"]
EMPTY_TEXTS = ["", " ", "None", "___", "No report."]
TEXT = often(st.sampled_from([*PLAIN_TEXTS, *PLAIN_TEXTS, *EMPTY_TEXTS]), ODD_TEXT)
IMAGE = often(st.integers(0, 99).map("p10/{}.png".format), ODD_TEXT)
SPLITS_SPELT = {
    **{"train": "train", "TRAIN": "train", " Train ": "train", "val": "val", "validate": "val"},
    **{"Validation": "val", "valid": "val", "test": "test"},
}
SPLIT = often(
    st.sampled_from(list(SPLITS_SPELT)), st.sampled_from(["trian", "", "dev", "train/val"])
)


class Outcomes:
    """The exit statuses of a test's examples; at the end there must be good and refused files."""

    def __init__(self):
        self.seen = set()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        assert kind or self.seen == {0, 2}, f"only files with exit status {self.seen} were drawn"

    def add(self, status):
        self.seen.add(status)


def says(text):
    """The report that a regular text gives; "" where it says nothing."""
    return text if text in PLAIN_TEXTS else ""


def regular(*texts, image=None, split=None):
    """Whether nothing odd was drawn."""
    return (
        all(text in PLAIN_TEXTS or text in EMPTY_TEXTS for text in texts)
        and (image is None or re.fullmatch(r"p10/\d+\.png", image) is not None)
        and (split is None or split in SPLITS_SPELT)
    )


def answers(samples):
    """(split, image) -> report of written samples."""
    return {(split, s["image"]): s["conversations"][1]["value"] for split, s in samples}


def value(strategy):
    """A value of a JSON object: once in a while of another type."""
    return often(strategy, ANY)


def run(module, folder, *flags):
    """(exit status, what was written, what was printed); never a traceback."""
    output = Path(folder) / "out"
    (Path(folder) / "images" / "p10").mkdir(parents=True, exist_ok=True)
    given_flags = [f"--image-root={Path(folder) / 'images'}", f"--output={output}", *flags]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = module.main([*given_flags, "--no-image-check"])
    assert status in (0, 2), status
    assert status == 0 or err.getvalue().startswith("error: ")
    assert err.getvalue().count("\n") == (status == 2)
    assert not list(Path(folder).rglob("*.partial"))
    written = {split: split_path(output, split) for split in SPLITS}
    assert all(path.exists() == (status == 0) for path in written.values())
    samples = [
        (split, sample)
        for split, path in written.items()
        if status == 0
        for sample in json.loads(path.read_text(encoding="utf-8"))
    ]
    return status, samples, out.getvalue()


def check(status, samples, out, folder, entries=None):
    """The counts add up, and what was written can be trained on."""
    if status:
        return
    total = next(line for line in out.splitlines() if line.startswith("total "))
    listed, converted, skipped, images, kept, left = map(int, total.split()[1:])
    assert (listed, images) == (converted + skipped, kept + left)
    assert kept == len(samples)
    assert entries is None or listed == entries
    for split in SPLITS:
        path = split_path(Path(folder) / "out", split)
        if any(where == split for where, _ in samples):
            for entry in load_entries(path, Path(folder) / "images"):
                text = json.dumps(entry.messages)
                assert "<|" not in text
                assert text.count("<image>") == 1
                assert entry.messages[1]["value"].strip()


def write_csv(path, header, rows, order, damage):
    """Columns in another order, one of them renamed or doubled, or bytes that are not text."""
    order = [header[i] for i in order]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*order[:-1], "other"] if damage == "renamed" else order)
    writer.writerows([[row[name] for name in order] for row in rows])
    content = text.getvalue().encode("utf-8", errors="surrogatepass")
    if damage == "cut":
        content = content[: len(content) * 2 // 3]
    if damage == "gzip cut":
        content = gzip.compress(content)[:-9]
    if damage == "latin":
        content += "é".encode("latin-1")
    path.write_bytes(content)


def tables(unique=lambda row: id(row), **columns):
    """(rows, order of the columns, damage) of a CSV with these columns."""
    names = list(columns)
    return st.tuples(
        st.lists(st.fixed_dictionaries(columns), max_size=5, unique_by=unique),
        st.permutations(range(len(names))),
        often(st.none(), st.sampled_from(["renamed", "cut", "gzip cut", "latin"])),
    )
