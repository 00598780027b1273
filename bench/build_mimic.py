"""How long a MIMIC-CXR of full size takes to build and to convert, and how much memory.

    python bench/build_mimic.py [--studies 230000] [--output bench/results/build_mimic.json]

Writes synthetic reports in the layout of PhysioNet's raw files (`llava.phantom.raw_layout`),
then runs `python -m llava.data.mimic_cxr build` on them, and the conversion on the annotation file
that it writes: a sample per image, and a sample per study with all its views and the prior study.
Each in a process of its own; the seconds are on the clock, and of processor time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import show

_RUN = """
import json, resource, sys, time
from llava.data.mimic_cxr.convert import main
begin = time.perf_counter()
status = main(sys.argv[1:])
seconds = round(time.perf_counter() - begin, 1)
cpu = round(time.process_time(), 1)
peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
print(json.dumps({"status": status, "seconds": seconds, "cpu_s": cpu, "peak_gib": peak}))
"""
_CONVERSIONS = {"an image": ["all"], "a study with its prior": ["all-views", "--prior"]}


def run(*flags: str) -> dict[str, object]:
    """`python -m llava.data.mimic_cxr` with these flags: its exit status, seconds, peak memory."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *flags], stdout=subprocess.PIPE, text=True, check=True
    )
    print(done.stdout, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, studies: int) -> dict[str, object]:
    """Of the build and of both conversions; files are written to `folder` first."""
    from llava.phantom import raw_layout as raw

    begin = time.perf_counter()
    raw.write_raw(folder, studies)
    wrote = time.perf_counter() - begin
    output = folder / "annotation_with_clinic_info.json"
    flags = [f"--reports={folder / raw.REPORTS}", f"--metadata={folder / raw.METADATA}"]
    flags += [f"--split={folder / raw.SPLIT}", f"--chexpert={folder / raw.CHEXPERT}"]
    built = run("build", *flags, f"--output={output}")
    given = [f"--annotation={output}", f"--image-root={folder}", "--no-image-check"]
    converted = {
        name: run(*given, f"--output={folder / name}", "--per-study", *choice)
        for name, choice in _CONVERSIONS.items()
    }
    return {
        "studies": studies,
        **built,
        "converted, a sample for": converted,
        "zip_mib": round((folder / raw.REPORTS).stat().st_size / 2**20),
        "annotation_mib": round(output.stat().st_size / 2**20),
        "writing_the_raw_files_s": round(wrote),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Time `python -m llava.data.mimic_cxr build` on synthetic raw files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=230_000, help="reports in the zip")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(measure(Path(folder), arguments.studies), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
