"""How long the annotation file of a MIMIC-CXR of full size takes to build, and how much memory.

    python bench/build_mimic.py [--studies 230000] [--output bench/results/build_mimic.json]

Writes synthetic reports in the layout of PhysioNet's raw files (`llava.data.phantom.raw_layout`),
then runs `python -m llava.data.mimic_cxr build` on them in a process of its own.
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

_BUILD = """
import json, resource, sys, time
from llava.data.mimic_cxr import main
begin = time.perf_counter()
status = main(["build", *sys.argv[1:]])
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"status": status, "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}))
"""


def measure(folder: Path, studies: int) -> dict[str, object]:
    """Seconds and peak memory of the build; files are written to `folder` first."""
    from llava.data.phantom import raw_layout as raw

    begin = time.perf_counter()
    raw.write_raw(folder, studies)
    wrote = time.perf_counter() - begin
    output = folder / "annotation_with_clinic_info.json"
    flags = [f"--reports={folder / raw.REPORTS}", f"--metadata={folder / raw.METADATA}"]
    flags += [f"--split={folder / raw.SPLIT}", f"--chexpert={folder / raw.CHEXPERT}"]
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, *flags, f"--output={output}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(done.stdout)
    return {
        "studies": studies,
        **json.loads(done.stdout.splitlines()[-1]),
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
