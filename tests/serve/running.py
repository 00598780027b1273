"""A real server on a free port, in a thread of the test's process."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest

httpx = pytest.importorskip("httpx", reason="the extra 'serve' is not installed")


@contextmanager
def running(guard):
    """The address of a server of a guard; stopped, and its engine drained, at the end."""
    from llava.serve.workers import Server

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(guard)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = listener.getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.handle_exit(15, None)
        thread.join(30)
        assert not thread.is_alive()


def client(address, **options):
    return httpx.Client(base_url=address, timeout=60, trust_env=False, **options)
