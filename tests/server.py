"""Servers on 127.0.0.1 that misbehave on demand: HTTP that is slow, stalls, cuts off, lies; and a small FTP one."""

import socket
import socketserver
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """How one request is answered; the default is a well-behaved server with ranges."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body
    stall_after: int | None = None  # send no more after so many bytes, but keep the connection
    ignore_range: bool = False
    claim_bytes: int | None = None  # Content-Length that is claimed instead of the true one
    chunked: bool = False  # no Content-Length
    pause_s: float = 0.0  # between pieces of 16 KiB


class Server:
    """Files under paths; `plan[path]` holds the answers to the next requests, after which all is well."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.missing = b"no such thing"  # what a 404 says
        self.plan: dict[str, list[Answer]] = defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.before: Callable[[str], Any] = lambda path: None
        self._stop = threading.Event()

    def __enter__(self) -> "Server":
        outer = self

        class Handler(_Handler):
            server_of_files = outer

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._http.shutdown()
        self._http.server_close()

    def put(self, path: str, content: bytes, etag: str | None = '"v1"') -> str:
        """Offer `content` at `path` and return its address."""
        self.files[path] = content
        self.etags.pop(path, None)
        if etag:
            self.etags[path] = etag
        return self.base + path

    def ranges(self, path: str) -> list[str | None]:
        """The `Range` headers of the requests for a path, in order."""
        return [headers.get("range") for asked, headers in self.requests if asked == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_files: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        outer = self.server_of_files
        path = self.path
        headers = {key.lower(): value for key, value in self.headers.items()}
        outer.requests.append((path, headers))
        outer.before(path)
        answer = outer.plan[path].pop(0) if outer.plan[path] else Answer()
        self.close_connection = True
        if path in outer.redirects:
            self.send_response(302)
            self.send_header("Location", outer.redirects[path])
            self.send_header("Connection", "close")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in outer.files or answer.status >= 400 or answer.status == 202:
            status = answer.status if answer.status != 200 else 404
            self._send(status, outer.missing if status == 404 else b"not now", answer)
            return
        content, etag = outer.files[path], outer.etags.get(path)
        if etag:
            answer.headers = {"ETag": etag, **answer.headers}
        answer.headers = {"Content-Type": outer.types.get(path, "application/octet-stream"), **answer.headers}
        start = self._start(headers, etag, answer)
        if start is None:
            self._send(200, content, answer)
        elif start >= len(content):
            answer.headers["Content-Range"] = f"bytes */{len(content)}"
            self._send(416, b"", answer)
        else:
            answer.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], answer)

    def _start(self, headers: dict[str, str], etag: str | None, answer: Answer) -> int | None:
        """Byte that is asked for; None for the whole file."""
        if answer.ignore_range or "range" not in headers:
            return None
        if "if-range" in headers and headers["if-range"] != etag:
            return None
        return int(headers["range"].removeprefix("bytes=").rstrip("-"))

    def _send(self, status: int, body: bytes, answer: Answer) -> None:
        self.send_response(status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Connection", "close")
        if not answer.chunked:
            self.send_header("Content-Length", str(answer.claim_bytes or len(body)))
        self.end_headers()
        end = min(limit for limit in (len(body), answer.cut_after, answer.stall_after) if limit is not None)
        try:
            for at in range(0, end, 16384):
                self.wfile.write(body[at : min(at + 16384, end)])
                time.sleep(answer.pause_s)
            self.wfile.flush()
            if answer.stall_after is not None:
                self.server_of_files._stop.wait(20)
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has gone


class FtpServer:
    """Just enough of FTP for one reader at a time; the first `cuts` transfers break off halfway."""

    def __init__(self, files: dict[str, bytes], cuts: int = 0) -> None:
        self.files, self.cuts = files, cuts
        self.commands: list[str] = []

    def __enter__(self) -> "FtpServer":
        outer = self

        class Handler(_FtpHandler):
            server_of_files = outer

        self._ftp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._ftp.daemon_threads = True
        self.base = f"ftp://127.0.0.1:{self._ftp.server_address[1]}"
        threading.Thread(target=self._ftp.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ftp.shutdown()
        self._ftp.server_close()


class _FtpHandler(socketserver.StreamRequestHandler):
    server_of_files: FtpServer

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        outer, rest, listener = self.server_of_files, 0, None
        self._say("220 hello")
        for raw in self.rfile:
            line = raw.decode().strip()
            outer.commands.append(line)
            command, _, value = line.partition(" ")
            name = "/" + value.lstrip("/")
            if command in ("USER", "PASS", "TYPE"):
                self._say("331 go on" if command == "USER" else "230 fine")
            elif command in ("SIZE", "MDTM", "RETR") and name not in outer.files:
                self._say("550 no such file")
            elif command == "SIZE":
                self._say(f"213 {len(outer.files[name])}")
            elif command == "MDTM":
                self._say("213 20240101000000")
            elif command in ("EPSV", "PASV"):
                listener = socket.create_server(("127.0.0.1", 0))
                port = listener.getsockname()[1]
                self._say(
                    f"229 ok (|||{port}|)" if command == "EPSV" else f"227 ok (127,0,0,1,{port >> 8},{port & 255})"
                )
            elif command == "REST":
                rest = int(value)
                self._say("350 from there")
            elif command == "RETR" and listener:
                self._say("150 here it comes")
                body = outer.files[name][rest:]
                if outer.cuts > 0:
                    outer.cuts -= 1
                    body = body[: len(body) // 2]
                connection, _ = listener.accept()
                with connection, listener:
                    connection.sendall(body)
                rest = 0
                self._say("226 done")
            else:
                self._say("221 bye" if command == "QUIT" else "502 not known")
