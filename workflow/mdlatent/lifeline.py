"""A line from every process of a parallel run to process 0, on which they meet and on which a death is noticed.

Process 0 listens, and writes where into a file beside the results, which all nodes share; the others read it and
connect. So the processes find one another under every launcher, and no list of nodes is needed. The line then stays
open: a process that ends without a word, or whose node is gone (the system asks every few seconds), closes it, and the
others end too instead of waiting for ever in a collective operation. It carries no data of a training.
"""

import contextlib
import fcntl
import json
import logging
import os
import queue
import secrets
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdlatent.errors import Interrupted, ProcessLost
from mdlatent.launch import Launch

__all__ = ["Line", "leave", "together"]

log = logging.getLogger("mdlatent")

START_S = 120.0  # in which all processes of one start must have come
GRACE_S = 5.0  # for a process to end by itself, with its own message, once another one is lost
LOOPBACK = "127.0.0.1"

_met = False  # whether this process was one of several


@contextlib.contextmanager
def together(launch: Launch, meeting: Path) -> "Iterator[Line]":
    """Meet the other processes of this start, and part from them at the end of the block.

    `meeting` is a path on a file system that all see; the file of the meeting lies beside it for a moment. Raises
    ProcessLost if a process does not come, or ends before its time.
    """
    if launch.size == 1:
        yield Line(launch)
        return
    global _met
    _met = True
    line = _listen(launch, meeting) if launch.rank == 0 else _call(launch, meeting)
    line.watch()
    try:
        yield line
    except Interrupted:
        line.close(in_order=True)  # all agreed on it
        raise
    except BaseException as error:
        lost = line.wait_for_loss(GRACE_S / 2) if isinstance(error, RuntimeError | OSError) else ""
        line.close(in_order=False)
        _end_in_any_case()
        if lost:
            raise ProcessLost(lost) from error
        raise
    line.close(in_order=True)


def leave(code: int, message: str = "") -> None:
    """End this process now, with a last message, if it was one of several; return if it was alone.

    All is written by now. What is skipped is the teardown of the libraries, which can wait for ever or abort: torch's
    Gloo joins its threads while it holds the interpreter's lock, and they may still want it to free their last tensor
    (seen with torch 2.13 about once in 50 runs).
    """
    if _met:
        if message:
            print(message, file=sys.stderr)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


class Line:
    """This process's end of the line; with one process there is none, and everything is done at once."""

    def __init__(self, launch: Launch, connections: dict[int, socket.socket] | None = None, **meeting: Any) -> None:
        self.launch = launch
        self.nodes: list[str] = meeting.get("nodes", [launch.node])  # of every process
        self.local_ranks: list[int] = meeting.get("local_ranks", [0])
        self.main_address: str = meeting.get("main_address", LOOPBACK)  # where this process reaches process 0
        self.interface: str | None = meeting.get("interface")  # network interface that reaches the others
        self._connections = connections or {}
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lost, self._lost_event, self._closed = "", threading.Event(), threading.Event()
        self._parted: set[int] = set()

    def tell(self, value: Any = None) -> Any:
        """Process 0: tell all others `value` (what JSON holds). They: wait for it, however long, and return it."""
        if self.launch.rank == 0:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):  # the watch sees it as well, and says it better
                    _send(connection, {"say": value})
            return value
        return self._said.get()

    def watch(self) -> None:
        """Begin to listen for what the others say and for their end."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def wait_for_loss(self, seconds: float) -> str:
        """What is known, within `seconds`, of a process that was lost; empty if none was."""
        self._lost_event.wait(seconds)
        return self._lost

    def close(self, in_order: bool) -> None:
        """Part from the others; not `in_order`, they take it for the accident that it is, and end."""
        self._closed.set()
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                if in_order:
                    _send(connection, {"bye": True})
                elif self._lost:
                    _send(connection, {"lost": self._lost})
                connection.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        buffers = dict.fromkeys(self._connections, b"")
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                connection.setblocking(True)
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    rank, connection = key.data, self._connections[key.data]
                    try:
                        data = connection.recv(65536)
                    except OSError:
                        data = b""
                    *lines, buffers[rank] = (buffers[rank] + data).split(b"\n")
                    for text in lines:
                        self._hear(rank, json.loads(text))
                    if not data:
                        selector.unregister(connection)
                        if rank not in self._parted:
                            self._note_loss(_obituary(rank, self.launch.size, self.nodes[rank]))

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        if "say" in message:
            self._said.put(message["say"])
        elif "bye" in message:
            self._parted.add(rank)
        elif "lost" in message:
            self._note_loss(message["lost"])

    def _note_loss(self, message: str) -> None:
        if self._lost_event.is_set() or self._closed.is_set():
            return
        self._lost = message
        self._lost_event.set()
        if self.launch.rank == 0:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    _send(connection, {"lost": self._lost})
        threading.Thread(target=self._end_after_grace, daemon=True).start()

    def _end_after_grace(self) -> None:
        if not self._closed.wait(GRACE_S):
            log.error("error: %s", self._lost)
            logging.shutdown()
            os._exit(1)  # the main thread waits for what never comes


def _listen(launch: Launch, meeting: Path) -> Line:
    """Process 0: wait for all others and tell each what it must know of all."""
    meeting.parent.mkdir(parents=True, exist_ok=True)
    path, token, end = _path(launch, meeting), secrets.token_hex(16), time.monotonic() + START_S
    hellos: dict[int, dict[str, Any]] = {}
    connections: dict[int, socket.socket] = {}
    with socket.create_server(("", 0), backlog=max(8, launch.size)) as server:
        offer = {
            "token": token,
            "port": server.getsockname()[1],
            "host": socket.gethostname(),
            "addresses": _addresses(),
        }
        _write_private(path, json.dumps(offer))
        try:
            while len(connections) < launch.size - 1:
                server.settimeout(max(0.01, end - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    absent = sorted(set(range(1, launch.size)) - set(connections))
                    raise ProcessLost(
                        f"of {launch.size} processes started by {launch.launcher}, {absent[:8]} did not come to {path} "
                        f"within {START_S:.0f} s; check their messages, and that all nodes share that folder"
                    ) from None
                _keep_alive(connection)
                try:
                    hello = json.loads(_read_line(connection, 10))
                    if not secrets.compare_digest(hello["token"], token) or not 0 < hello["rank"] < launch.size:
                        raise ValueError
                    _send(connection, {"welcome": True})
                except (OSError, ValueError, KeyError, TypeError):  # a stranger, or one that gave up
                    connection.close()
                    continue
                hellos[hello["rank"]], connections[hello["rank"]] = hello, connection
        finally:
            path.unlink(missing_ok=True)
    others = [hellos[rank] for rank in range(1, launch.size)]
    known = {
        "nodes": [launch.node] + [hello["node"] for hello in others],
        "local_ranks": [launch.local_rank] + [hello["local_rank"] for hello in others],
    }
    mine = [connection.getsockname()[0] for connection in connections.values()]
    outside = next((address for address in mine if address != LOOPBACK), LOOPBACK)
    interface = _interface(outside)
    for connection in connections.values():
        here = connection.getsockname()[0] == LOOPBACK  # else it knows itself how it came
        _send(connection, {**known, "interface": interface if here else None})
    return Line(launch, connections, **known, main_address=LOOPBACK, interface=interface)


def _call(launch: Launch, meeting: Path) -> Line:
    """Any other process: find process 0, which may not be there yet."""
    path, end = _path(launch, meeting), time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            offer = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            time.sleep(0.05)
            with contextlib.suppress(OSError):
                os.listdir(path.parent)  # noqa: PTH208 (a shared file system then looks again)
            continue
        here = offer["host"] == socket.gethostname()
        for address in [LOOPBACK] * here + [offer["host"], *offer["addresses"]]:
            try:
                connection = socket.create_connection((address, offer["port"]), timeout=3)
                _keep_alive(connection)
                hello = {"token": offer["token"], "rank": launch.rank}
                _send(connection, hello | {"node": launch.node, "local_rank": launch.local_rank})
                _read_line(connection, 10)
            except (OSError, ValueError):
                continue
            try:
                known = json.loads(_read_line(connection, max(1.0, end + 5 - time.monotonic())))
            except (OSError, ValueError) as error:
                raise ProcessLost(f"process 0 ended while process {launch.rank} waited for the others") from error
            known["interface"] = known["interface"] or _interface(connection.getsockname()[0])
            return Line(launch, {0: connection}, **known, main_address=address)
        time.sleep(0.2)  # the file of a start that was killed: process 0 of this one will write its own
    raise ProcessLost(
        f"process {launch.rank} of {launch.size}, started by {launch.launcher} on {launch.node}, did not find "
        f"process 0 at {path} within {START_S:.0f} s; check its messages, and that all nodes share that folder"
    )


def _obituary(rank: int, size: int, node: str) -> str:
    return (
        f"process {rank} of {size}, on {node}, ended before its work was done, so that the others had to end too; its "
        "own last messages say why. Started again, a training goes on from its last checkpoint"
    )


def _path(launch: Launch, meeting: Path) -> Path:
    return meeting.with_name(f".{meeting.name}.meeting-{launch.identity}.json")


def _write_private(path: Path, text: str) -> None:
    """In one step, readable to the user alone: whoever knows the token could join."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            handle.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _read_line(connection: socket.socket, seconds: float) -> str:
    """One line, byte by byte, so that nothing of what follows is taken away."""
    connection.settimeout(seconds)
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("closed")
        line += byte
    return line.decode()


def _keep_alive(connection: socket.socket) -> None:
    """Have the system notice within about 30 s that the other node is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _interfaces() -> dict[str, str]:
    """IPv4 address of each network interface that has one (Linux)."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _addresses() -> list[str]:
    return [address for address in _interfaces().values() if not address.startswith("127.")]


def _interface(address: str) -> str | None:
    return next((name for name, own in _interfaces().items() if own == address), None)


def _end_in_any_case() -> None:
    """A library that waits for the lost process while it is torn down must not keep this one alive."""
    import faulthandler

    with contextlib.suppress(AttributeError, ValueError, OSError):  # no real stderr
        faulthandler.dump_traceback_later(4 * GRACE_S, exit=True, file=sys.__stderr__ or 2)
