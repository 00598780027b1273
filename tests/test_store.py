"""A log of records survives a kill at any byte, and says when a file is not such a log."""

import json
import subprocess
import sys

import pytest

from llava.store import FolderInUseError, RecordLog, differences, locked, read_records

RECORDS = [{"id": "a", "text": "naïve\u2028line\nbreaks"}, {"id": "b", "text": "second"}]


def test_a_log_cut_off_at_any_byte_holds_its_whole_lines_and_goes_on_after_them(tmp_path):
    path = tmp_path / "log.jsonl"
    with RecordLog(path) as log:
        log.write(RECORDS)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = [] if cut < first else RECORDS[: 1 if cut < len(content) else 2]
        assert list(read_records(path).values()) == whole
        with RecordLog(path) as log:
            assert list(log.records.values()) == whole
            log.write([{"id": "z"}])
        assert list(read_records(path)) == [record["id"] for record in whole] + ["z"]


def test_a_record_that_is_written_again_replaces_the_earlier_one(tmp_path):
    with RecordLog(tmp_path / "new" / "log.jsonl") as log:
        log.write(RECORDS)
        log.write([{"id": "a", "text": "again"}])
        assert log.records == read_records(log.path)
    assert log.records["a"] == {"id": "a", "text": "again"}
    assert read_records(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("line", ["{", "[1]", "{}", '{"id": 3}', "\ufeff{}", ""])
def test_a_file_that_is_not_a_log_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "log.jsonl"
    content = json.dumps(RECORDS[0]) + f"\n{line}\n"
    path.write_text(content, encoding="utf-8")
    for read in (RecordLog, read_records):
        with pytest.raises(ValueError, match=r"log\.jsonl', line 2 is not a record with an id"):
            read(path)
    assert path.read_text(encoding="utf-8") == content


def test_what_differs_is_told_for_each_key_an_absent_one_too():
    found = differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4})
    assert list(found.values()) == [
        "b: 2 before, 5 now",
        "c: 3 before, None now",
        "d: None before, 4 now",
    ]


HOLDER = """
import sys
from pathlib import Path
from llava.store import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_taken_over_from_a_dead_one(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        held_by = f"in use by process {holder.pid} on "
        with pytest.raises(FolderInUseError, match=held_by), locked(tmp_path):
            pytest.fail("two processes hold the folder")
        holder.kill()
        holder.wait()
        with locked(tmp_path):
            pass
