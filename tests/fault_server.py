"""A small HTTP server of a folder that fails in the ways that storage behind a network does."""

import contextlib
import http.server
import re
import socket
import threading
import time
from pathlib import Path


class FaultServer:
    """`with FaultServer(folder) as server:` serves it at `server.url`.

    requests: (file name, first byte asked for) of every request so far.
    faults: by file name, what happens to its next answers, one each: an int is an HTTP status, ("drop", n) breaks the
        connection after n bytes, ("flip", n) changes byte n of the file, ("stall", s) waits so many seconds.
    ranges: whether byte ranges are understood. die_after: bytes of bodies after which the server is gone for good.
    """

    def __init__(self, folder, *, ranges=True, die_after=None):
        self.folder, self.ranges, self.die_after = Path(folder), ranges, die_after
        self.requests, self.faults, self.sent, self.dead = [], {}, 0, False
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()

    def starts(self, name):
        """The first bytes that were asked for of a file, in order."""
        return [first for asked, first in self.requests if asked == name]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        owner = self.server_of
        name = self.path.rsplit("/", 1)[-1]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        owner.requests.append((name, first))
        if owner.dead:
            self._hang_up()
            return
        fault = owner.faults[name].pop(0) if owner.faults.get(name) else None
        path = owner.folder / self.path.lstrip("/")
        if isinstance(fault, int) or not path.is_file():
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        data = bytearray(path.read_bytes())
        kind, value = fault or (None, 0)
        if kind == "flip":
            data[value] ^= 1
        if kind == "stall":
            time.sleep(value)
        partial = wanted is not None and owner.ranges
        if partial and first >= len(data):
            self.send_error(416)
            return
        body = bytes(data[first:] if partial else data)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        allowed = value if kind == "drop" else len(body)
        if owner.die_after is not None and owner.sent + allowed > owner.die_after:
            allowed, owner.dead = max(0, owner.die_after - owner.sent), True
        owner.sent += min(allowed, len(body))
        with contextlib.suppress(OSError):
            self.wfile.write(body[:allowed])
        if allowed < len(body):
            self._hang_up()

    def _hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass
