"""Serve a checkpoint: a page to draft with, and an API, on this machine only unless told otherwise.

python -m llava.serve --model-path exp/demo/stage2
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.serve.workers import Plan

_SHORTEST_TOKEN = 16


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        print(f"error: {error}; pip install -e '.[serve]'", file=sys.stderr)
        return 2
    try:
        plan = _plan(args)
        listener = _listen(args.host, args.port)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        return _serve(plan, listener)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.serve",
        description="A page and an API to draft chest X-ray reports with. For research: not a "
        "medical device.",
    )
    parser.add_argument("--model-path", required=True, help="checkpoint folder of stage 2")
    parser.add_argument("--name", help="of the model in the API (default: the folder's)")
    parser.add_argument("--host", default="127.0.0.1", help="another address needs --token-file")
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, help="0: a free one")
    parser.add_argument(
        "--token-file", type=Path, help="the token that every call must bring, on its first line"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], help="a further name of this server"
    )
    parser.add_argument("--log-dir", type=Path, help="keep drafts.csv of edits here")
    parser.add_argument("--queue", type=whole_number(1), default=64, help="requests that may wait")
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=32, help="canvases decoded at once"
    )
    parser.add_argument(
        "--gen-length", type=whole_number(1, 512), default=128, help="canvas of a report"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", help="float32, bfloat16 (default: bfloat16 on cuda)")
    parser.add_argument(
        "--nproc", type=whole_number(1), default=1, help="processes, each on a GPU of its own"
    )
    return parser


def _plan(args: argparse.Namespace) -> Plan:
    """Everything that can be checked before the model is loaded."""
    from llava.diffusion.config import SamplingConfig
    from llava.model.checkpoint import check_checkpoint, check_sampling
    from llava.serve.refusals import Limits
    from llava.serve.workers import Plan

    defaults = SamplingConfig(gen_length=args.gen_length)
    check_sampling(check_checkpoint(args.model_path), defaults)
    if args.log_dir is not None:
        from llava.serve.log import StudyLog

        StudyLog(args.log_dir)
    settings = {
        "name": args.name or Path(args.model_path).resolve().name,
        "defaults": defaults,
        "limits": Limits(queue=args.queue),
        "rows": args.batch_size,
        "log_dir": args.log_dir,
        "token": _token(args),
        **_hosts(args),
    }
    if args.nproc > 1 and args.device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device {args.device} with --nproc: give cuda, or leave it out")
    return Plan(args.model_path, args.device, args.dtype, args.nproc, settings)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(args: argparse.Namespace) -> str | None:
    if args.token_file is None:
        if not _is_loopback(args.host):
            raise ValueError(
                f"--host {args.host} can be reached from other machines and needs --token-file: a "
                f"file with a token of at least {_SHORTEST_TOKEN} characters"
            )
        return None
    token = args.token_file.read_text(encoding="utf-8").split("\n")[0].strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"--token-file {str(args.token_file)!r}: its first line must be a token of at least "
            f"{_SHORTEST_TOKEN} ASCII characters"
        )
    return token


def _hosts(args: argparse.Namespace) -> dict[str, Any]:
    """What a Host header may hold: on every address (0.0.0.0) any IP, but only known names."""
    names = {"127.0.0.1", "localhost", "::1", args.host.lower(), *map(str.lower, args.allow_host)}
    if not _is_loopback(args.host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return {"hosts": tuple(sorted(names)), "any_address": args.host in ("0.0.0.0", "::")}


def _listen(host: str, port: int) -> socket.socket:
    """One socket for all processes, which take connections from it in turn."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = f"cannot listen on {host}:{port}: {error.strerror}"
        raise OSError(f"{reason}; give another --port or --host") from error
    listener.set_inheritable(True)
    return listener


def _serve(plan: Plan, listener: socket.socket) -> int:
    from llava.serve.workers import run, run_all

    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    name = plan.settings["name"]

    def ready() -> None:
        listener.listen(128)
        print(f"{name} at {address} (research only, not a medical device)", flush=True)

    if plan.processes > 1:
        return run_all(plan, listener, ready)
    run(plan, 0, listener, ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
