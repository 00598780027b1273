"""Load test of llava.serve against a real server: nothing lost, nothing wrong, how much faster.

    python bench/serve.py --model-path exp/demo/stage2 --gen-length 64 --images exp/demo/data/images

Starts a server, asks for each of a few dozen different reports one at a time, then for many of them
by 20 clients at once: every text must be that of the single request. Then the bad requests of
`bad_requests.py`. Prints ratios, which are worth something on a shared machine, and writes JSON.
Without --images the pictures are noise. Fails when a report is lost or wrong, or a bad request is
not refused.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bad_requests import BODIES
from PIL import Image

RESULTS = Path(__file__).parent / "results"
CONTEXTS = ("", "Cough and fever", "Chest pain. History of heart failure, on diuretics.")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    bodies = requests(pictures(args), args)
    with server(args) as (process, address, seconds):
        result = {"start_seconds": round(seconds, 1), "gen_length": args.gen_length}
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
            ask(client, bodies[0])  # the first report pays for what is allocated once
            alone = one_at_a_time(client, bodies)
            print(f"one at a time: {alone['shown']}", file=sys.stderr, flush=True)
            warm = memory(process)
            together = at_once(address, bodies, alone, args)
            print(f"together: {together}", file=sys.stderr, flush=True)
            loaded = memory(process)
            result |= {"one_at_a_time": alone["shown"], "together": together}
            ratio = together["reports_per_second"] / alone["shown"]["reports_per_second"]
            result["throughput_ratio"] = round(ratio, 2)
            result["bad_requests"] = bad(client, bodies[0])
            refused = memory(process)
            bad(client, bodies[0])
            result["memory_mib"] = {
                "after_one_at_a_time": warm,
                "after_load": loaded,
                "after_bad_requests": refused,
                "after_bad_requests_again": memory(process),
            }
        process.terminate()
        result["exit_status"] = process.wait(60)
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    faults = together["lost"] + together["wrong"] + result["bad_requests"]["not_refused"]
    return 1 if faults or result["exit_status"] else 0


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    own.add_argument("--model-path", required=True, type=Path, help="checkpoint folder of stage 2")
    own.add_argument("--images", type=Path, help="folder of images (default: noise)")
    own.add_argument("--clients", type=int, default=20)
    own.add_argument("--requests", type=int, default=500, help="by all clients together")
    own.add_argument("--different", type=int, default=60, help="requests asked one at a time")
    own.add_argument("--gen-length", type=int, default=64)
    own.add_argument("--threshold", type=float, help="decode with this threshold")
    own.add_argument("--port", type=int, default=0)
    own.add_argument("--output", type=Path, default=RESULTS / "serve.json")
    return own


def pictures(args: argparse.Namespace) -> list[str]:
    """Base64 of up to 20 images."""
    if args.images:
        found = sorted(path for path in args.images.rglob("*") if path.suffix in (".png", ".jpg"))
        return [base64.b64encode(path.read_bytes()).decode() for path in found[:20]]
    noise = np.random.default_rng(0)
    made = []
    for _ in range(20):
        file = io.BytesIO()
        small = Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8))
        small.resize((224, 224)).save(file, "PNG")
        made.append(base64.b64encode(file.getvalue()).decode())
    return made


def requests(images: Sequence[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Different ones: images, contexts, and sampled text next to greedy text."""
    sampling = {} if args.threshold is None else {"threshold": args.threshold}
    bodies = []
    for index in range(args.different):
        context = CONTEXTS[index % len(CONTEXTS)]
        own = {**sampling, "temperature": 0.5} if index % 5 == 4 else sampling
        bodies.append(
            {
                "images": [{"data": images[index % len(images)], "role": "frontal"}],
                "context": {"indication": context} if context else {},
                "seed": index,
                "sampling": own,
            }
        )
    return bodies


@contextmanager
def server(args: argparse.Namespace):
    """(process, address, seconds until it took requests)."""
    command = [sys.executable, "-m", "llava.serve", "--model-path", str(args.model_path)]
    command += ["--port", str(args.port), "--gen-length", str(args.gen_length)]
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline()
        if " at " not in line:
            raise SystemExit(f"the server did not start; run: {' '.join(command)}")
        yield process, line.split(" at ")[1].split()[0], time.monotonic() - began
    finally:
        if process.poll() is None:  # the test failed, or the server does not end by itself
            process.kill()
            process.wait()


def ask(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/reports", json=body)
    answer.raise_for_status()
    return answer.json()


def key(answer: dict[str, Any]) -> tuple:
    """What must not depend on who else asks."""
    return answer["text"], tuple((token["text"], token["pass"]) for token in answer["tokens"])


def one_at_a_time(client: httpx.Client, bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    began = time.monotonic()
    found = [key(ask(client, body)) for body in bodies]
    seconds = time.monotonic() - began
    shown = {"reports": len(found), "reports_per_second": round(len(found) / seconds, 3)}
    return {"found": found, "shown": shown | {"different_texts": len({text for text, _ in found})}}


def at_once(
    address: str, bodies: Sequence[dict[str, Any]], alone: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    order = [index % len(bodies) for index in range(args.requests)]
    random.Random(0).shuffle(order)

    def work(own: Sequence[int]) -> list[tuple[bool, bool, float]]:
        """(lost, wrong, seconds) of each request of a client."""
        found = []
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
            for index in own:
                began = time.monotonic()
                try:
                    wrong = key(ask(client, bodies[index])) != alone["found"][index]
                    found.append((False, wrong, time.monotonic() - began))
                except httpx.HTTPError:
                    found.append((True, False, time.monotonic() - began))
        return found

    began = time.monotonic()
    with ThreadPoolExecutor(args.clients) as clients:
        shares = [order[client :: args.clients] for client in range(args.clients)]
        found = [one for part in clients.map(work, shares) for one in part]
    seconds = time.monotonic() - began
    latency = sorted(one[2] for one in found)
    return {
        "clients": args.clients,
        "reports": len(found),
        "lost": sum(one[0] for one in found),
        "wrong": sum(one[1] for one in found),
        "reports_per_second": round(len(found) / seconds, 3),
        "latency_seconds": {
            "median": round(latency[len(latency) // 2], 3),
            "p95": round(latency[int(0.95 * len(latency))], 3),
        },
    }


def bad(client: httpx.Client, good: dict[str, Any]) -> dict[str, Any]:
    """Every bad body, and how long the slowest answer took."""
    limits = client.get("/v1/settings").json()["limits"]
    times, passed = {}, []
    for name, make in BODIES.items():
        content = json.dumps(make(good["images"][0]["data"], limits)).encode()
        began = time.monotonic()
        answer = client.post(
            "/v1/reports", content=content, headers={"content-type": "application/json"}
        )
        times[name] = time.monotonic() - began
        if not 400 <= answer.status_code < 500 or not answer.json()["error"]["message"]:
            passed.append(name)
    for name in passed:
        print(f"not refused: {name}", file=sys.stderr)
    return {
        "sent": len(BODIES),
        "not_refused": len(passed),
        "slowest": max(times, key=times.get),
        "slowest_seconds": round(max(times.values()), 3),
    }


def memory(process: subprocess.Popen) -> int:
    """Resident memory in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    sys.exit(main())
