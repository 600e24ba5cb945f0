"""Opening a file on an HTTP or FTP server at a given byte."""

import datetime
import email.utils
import ftplib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from mdlatent import __version__
from mdlatent.errors import FetchError, NotFoundError

CHUNK_BYTES = 1 << 16
TRY_AGAIN = {202, 408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
ADVICE = {
    401: "It asks for a login: fetch the file by hand and give its path.",
    403: "It refuses access: fetch the file by hand and give its path.",
    404: "Check the address for typing errors; perhaps the file has moved.",
    410: "The file has been taken away: look for a newer address.",
}


class UnfinishedError(Exception):
    """A try failed in a way that another one may mend."""

    def __init__(self, message: str, wait_s: float | None = None, discard: bool = False, at_once: bool = False):
        super().__init__(message)
        self.wait_s = wait_s  # what the server asked for (Retry-After)
        self.at_once = at_once  # nothing is wrong with the server: waiting would not help
        self.discard = discard  # what is here already does not fit what the server has now


@dataclass
class Opened:
    """A stream of a file's bytes from `start` on."""

    start: int
    total: int | None  # bytes of the whole file, None where the server does not say
    validator: str | None  # names this very content (ETag, or time of change); None if the server gives none
    chunks: Iterator[bytes]
    is_page: bool = False  # the server calls it HTML


def open_url(url: str, start: int, validator: str | None, timeout_s: float) -> Opened:
    """Open `url` at byte `start` of the content named by `validator`, or at 0 where that is not possible.

    Raises UnfinishedError where another try may help, FetchError where not.
    """
    opener = _ftp if urlsplit(url).scheme == "ftp" else _http
    return opener(url, start, validator, timeout_s)


def host(url: str) -> str:
    """The server's name, for messages."""
    return urlsplit(url).hostname or url


def _http(url: str, start: int, validator: str | None, timeout_s: float) -> Opened:
    import requests

    # Without `identity` a server may compress on the way, and byte counts would mean nothing.
    headers = {"User-Agent": f"mdlatent/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=timeout_s)
    except requests.exceptions.SSLError as error:
        raise FetchError(
            f"{host(url)}: no secure connection: {reason(error)}. Check the address and this machine's clock and "
            "certificates (variable REQUESTS_CA_BUNDLE)"
        ) from error
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ) as error:
        raise FetchError(f"{url!r} is no valid address: {error}") from error
    except requests.exceptions.TooManyRedirects as error:
        raise FetchError(f"{host(url)}: the address leads round in circles; open it in a browser to see why") from error
    except requests.RequestException as error:
        raise UnfinishedError(f"{host(url)}: {reason(error)}") from error
    try:
        return _answer(response, url, start)
    except BaseException:
        response.close()
        raise


def _answer(response: Any, url: str, start: int) -> Opened:
    """What an HTTP answer means."""
    status, headers = response.status_code, response.headers
    etag = headers.get("ETag")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    encoded = headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
    length = headers.get("Content-Length", "")
    if status == 416 and start:
        known = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
        if known and int(known[1]) == start:
            return Opened(start, start, validator, iter(()))  # nothing was missing
        raise UnfinishedError(f"{host(url)}: has fewer bytes than were loaded before", discard=True, at_once=True)
    if status == 206:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if not part or int(part[1]) != start:
            raise UnfinishedError(
                f"{host(url)}: sent another part of the file than asked for", discard=True, at_once=True
            )
        total = None if part[2] == "*" else int(part[2])
        return Opened(start, total, validator, _stream(response, url, encoded=False))
    if status == 200:
        kind = headers.get("Content-Type", "").lower()
        total = None if encoded or not length.isdigit() else int(length)
        chunks = _stream(response, url, encoded)
        return Opened(0, total, None if encoded else validator, chunks, is_page=kind.startswith("text/html"))
    says = f"{host(url)} answered {status} {response.reason or ''}".rstrip()
    if status in TRY_AGAIN:
        raise UnfinishedError(says, wait_s=retry_after(headers.get("Retry-After")))
    kind = NotFoundError if status in (404, 410) else FetchError
    raise kind(f"{says} for {_shown(url)}. {ADVICE.get(status, 'Open the address in a browser to see why.')}")


def _stream(response: Any, url: str, encoded: bool) -> Iterator[bytes]:
    import requests
    import urllib3

    try:
        if encoded:
            yield from response.iter_content(CHUNK_BYTES)
        else:  # small pieces: a piece that is cut off is lost
            yield from response.raw.stream(CHUNK_BYTES, decode_content=False)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise UnfinishedError(f"{host(url)}: {reason(error)}") from error
    finally:
        response.close()


def retry_after(value: str | None) -> float | None:
    """Seconds to wait from a `Retry-After` header, which gives seconds or a date."""
    if not value:
        return None
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        until = email.utils.parsedate_to_datetime(value)
        return max(0.0, (until - datetime.datetime.now(until.tzinfo)).total_seconds())
    return None


def _ftp(url: str, start: int, validator: str | None, timeout_s: float) -> Opened:
    parts = urlsplit(url)
    path = unquote(parts.path).lstrip("/")
    server = ftplib.FTP(timeout=timeout_s)
    try:
        server.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        server.login(unquote(parts.username or "anonymous"), unquote(parts.password or "anonymous@"))
        server.voidcmd("TYPE I")
        total, changed = None, None
        with suppress(ftplib.error_perm, ftplib.error_reply):
            total = server.size(path)
        with suppress(ftplib.error_perm, ftplib.error_reply):
            changed = server.sendcmd(f"MDTM {path}").partition(" ")[2] or None
        if start and (changed != validator or total is None or start > total):
            start = 0
        try:
            connection = server.transfercmd(f"RETR {path}", rest=start or None)
        except ftplib.error_perm as error:
            if start and str(error)[:3] in ("500", "501", "502", "504"):  # no REST there
                start = 0
                connection = server.transfercmd(f"RETR {path}")
            else:
                raise
    except ftplib.error_perm as error:
        server.close()
        kind = NotFoundError if str(error).startswith("550") else FetchError
        raise kind(f"{host(url)} refused {_shown(url)}: {error}. Check the address for typing errors") from error
    except ftplib.all_errors as error:
        server.close()
        raise UnfinishedError(f"{host(url)}: {reason(error)}") from error
    return Opened(start, total, changed, _ftp_stream(server, connection, url))


def _ftp_stream(server: ftplib.FTP, connection: Any, url: str) -> Iterator[bytes]:
    try:
        while chunk := connection.recv(1 << 16):
            yield chunk
    except (OSError, EOFError) as error:
        raise UnfinishedError(f"{host(url)}: {reason(error)}") from error
    finally:
        connection.close()
        server.close()


def _shown(url: str) -> str:
    from mdlatent.sources import without_secrets

    return without_secrets(url)


def reason(error: BaseException) -> str:
    """A short sentence for the many ways in which a connection breaks."""
    text = f"{type(error).__name__} {error}"
    known = {
        r"timed? ?out": "no byte for longer than `fetch.timeout_s`",
        r"resolve|Name or service|getaddrinfo|No address": "its name is not known; is this machine offline?",
        r"refused": "the connection was refused",
        r"unreachable": "the network cannot be reached",
        r"reset|broken|IncompleteRead|Remote end closed|aborted|EOF": "the connection broke off",
        r"certificate": "its certificate is not valid here",
        r"[Pp]roxy": f"the proxy did not answer: {error}",
    }
    return next(
        (says for pattern, says in known.items() if re.search(pattern, text)), str(error) or type(error).__name__
    )
