"""Conformers by CID from PubChem's PUG REST service, one request at a time, each answer kept in the download cache.

    <base>/compound/cid/<CID>/conformers/JSON   {"InformationList": {"Information": [{"CID": …, "ConformerID": […]}]}}
    <base>/conformers/<ConformerID>/SDF         one record

PubChem allows 5 requests per second and 400 per minute, and blocks who asks for more; the header X-Throttling-Control
says how near one is to it (PUG REST specification; "Dynamic request throttling"). Two processes take turns.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mdlatent import __version__, files, transports
from mdlatent.conformers.pubchem_records import Filters, Group, cid_of, elements_of, records, tag
from mdlatent.download import LONGEST_WAIT_S, Policy
from mdlatent.errors import DataError, FetchError
from mdlatent.sources import without_secrets
from mdlatent.transports import UnfinishedError

__all__ = ["BASE", "Client", "Pace"]

log = logging.getLogger("mdlatent")
Answer = TypeVar("Answer")

BASE = "https://pubchem.ncbi.nlm.nih.gov/rest/pug"
INTERVAL_S = 0.2  # 5 requests per second, so 300 per minute
MOST_BYTES = 4 << 20  # of one answer; a list of 500 conformers or a record takes far less
# By the worst colour of X-Throttling-Control: how many times slower, until the next answer says otherwise.
SLOWER = {"green": 1, "yellow": 2, "red": 5, "black": 300}


class Pace:
    """Keeps requests apart in time, further where the server says that it has much to do."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s, self.factor = interval_s, 1
        self._last = float("-inf")

    def wait(self) -> None:
        """Sleep until the next request may begin."""
        rest = self._last + self.interval_s * self.factor - time.monotonic()
        if rest > 2:
            log.info("the server asks for fewer requests: waiting for %.0f s", rest)
        if rest > 0:
            time.sleep(rest)
        self._last = time.monotonic()

    def heed(self, header: str | None) -> None:
        """Take the colours of an answer: `Request Count status: Green (0%), Request Time status: …, Service …`."""
        named = re.findall(r"status:\s*(\w+)", header or "")
        self.factor = max((SLOWER.get(colour.lower(), 1) for colour in named), default=1)


class Client:
    """Asks PUG REST at `base`; keeps what it gets under `folder` (locked by the caller)."""

    def __init__(self, base: str, folder: Path, policy: Policy, interval_s: float = INTERVAL_S) -> None:
        import requests

        self.base, self.folder, self.policy, self.pace = base.rstrip("/"), folder, policy, Pace(interval_s)
        self.requests = 0
        self._session = requests.Session()  # one connection for all: a handshake takes longer than an answer
        self._session.headers["User-Agent"] = f"mdlatent/{__version__}"

    def groups(self, cids: Iterable[int], filters: Filters, missing: list[int]) -> Iterator[Group]:
        """The compounds in the order asked for; those without a 3-D record are named and added to `missing`.

        Of a compound that `filters` will refuse, no more is fetched than shows it.
        Raises FetchError where the server cannot be asked; all that came before is kept.
        """
        for cid in cids:
            names = self.conformers(cid)
            if not names:
                missing.append(cid)
                log.warning("CID %d: PubChem has no 3-D record of it; the others go on", cid)
                continue
            found: list[bytes] = []
            for name in names[: filters.max_conformers] if len(names) >= filters.min_conformers else []:
                record = self.record(cid, name)
                if record is None:
                    log.warning("CID %d: conformer %s is listed, but there is no record of it", cid, name)
                    continue
                found.append(record)
                if filters.refuses(record):
                    break
            yield Group(cid, found)

    def conformers(self, cid: int) -> list[str]:
        """Names of a compound's conformers in diverse order; none if PubChem has no 3-D record. Raises FetchError."""
        path = self._folder(cid) / "conformers.json"
        try:
            return [str(name) for name in files.read_json(path)]
        except (OSError, ValueError, TypeError):
            names = self._get(f"compound/cid/{cid}/conformers/JSON", lambda body: _names(body, cid)) or []
        if names:  # not of those without: they may have one next time
            files.write_json(path, names)
        return names

    def record(self, cid: int, name: str) -> bytes | None:
        """One conformer; None if there is no such record. Raises FetchError."""
        path = self._folder(cid) / f"{name}.sdf"
        try:
            return _record(path.read_bytes(), cid, name)
        except (OSError, UnfinishedError):
            found = self._get(f"conformers/{name}/SDF", lambda body: _record(body, cid, name))
        if found is not None:
            with files.write_beside(path) as temporary:
                temporary.write_bytes(found)
        return found

    def _folder(self, cid: int) -> Path:
        return self.folder / f"{cid // 1000}" / f"{cid}"  # no folder of a million entries

    def _get(self, path: str, read: Callable[[bytes], Answer]) -> Answer | None:
        """What `read` makes of the answer, None for "not found"; tried again where that may help."""
        url = f"{self.base}/{path}"
        shown = without_secrets(url)
        for attempt in range(1, self.policy.attempts + 1):
            self.pace.wait()
            try:
                body = self._ask(url)
                return None if body is None else read(body)
            except UnfinishedError as error:
                problem = error
            wait_s = self.policy.wait_s(attempt, problem.wait_s)
            if problem.wait_s and wait_s > LONGEST_WAIT_S:
                raise FetchError(f"{shown}: {problem}; the server asks to come back in {wait_s:.0f} s. {_KEPT}")
            if attempt < self.policy.attempts:
                log.warning(
                    "try %d of %d: %s: %s; again in %.1f s", attempt, self.policy.attempts, path, problem, wait_s
                )
                time.sleep(wait_s)
        raise FetchError(
            f"{shown}: given up after {self.policy.attempts} tries; the last one: {problem}. {_KEPT}; if it is this "
            "compound alone, leave it out of the list"
        )

    def _ask(self, url: str) -> bytes | None:
        """One request: its body, None for PUG REST's "not found"."""
        import requests

        self.requests += 1
        try:
            with self._session.get(url, stream=True, timeout=self.policy.timeout_s) as response:
                self.pace.heed(response.headers.get("X-Throttling-Control"))
                body = b""
                for chunk in response.iter_content(transports.CHUNK_BYTES):
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise FetchError(
                            f"{without_secrets(url)}: got more than {MOST_BYTES:,} bytes, expected far less"
                        )
        except requests.exceptions.SSLError as error:
            raise FetchError(
                f"{transports.host(url)}: no secure connection: {transports.reason(error)}. Check this machine's clock "
                "and certificates (variable REQUESTS_CA_BUNDLE)"
            ) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                requests.exceptions.MissingSchema) as error:  # fmt: skip
            raise FetchError(f"{url!r} is no valid address ({error}); expected one like {BASE}") from error
        except requests.RequestException as error:
            raise UnfinishedError(f"{transports.host(url)}: {transports.reason(error)}") from error
        return _answered(response, body, url)


_KEPT = "What arrived is kept: run again and it goes on from there"


def _answered(response: Any, body: bytes, url: str) -> bytes | None:
    """What an answer's status means; PUG REST names each fault in the body, as PUGREST.NotFound."""
    status = response.status_code
    if status == 200:
        return body
    found = re.search(rb"PUGREST\.(\w+)", body)
    says = f"{transports.host(url)} answered {status} {found[1].decode() if found else response.reason or ''}".rstrip()
    if status == 404 and found and found[1] == b"NotFound":
        return None
    if status in transports.TRY_AGAIN:
        raise UnfinishedError(says, wait_s=transports.retry_after(response.headers.get("Retry-After")))
    raise FetchError(
        f"{says} for {without_secrets(url)}, expected a conformer or PUGREST.NotFound. Open the address in a "
        f"browser to see why; if you gave --rest, it should be like {BASE}"
    )


def _names(body: bytes, cid: int) -> list[str]:
    try:
        (found,) = json.loads(body)["InformationList"]["Information"]
        names = found.get("ConformerID", [])
        if found["CID"] != cid or not all(re.fullmatch(r"[0-9A-Fa-f]{16}", name) for name in names):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnfinishedError(f"got {body[:60]!r}, expected the list of conformers of CID {cid}") from error
    return list(names)


def _record(body: bytes, cid: int, name: str) -> bytes:
    """The record if it is whole and the one asked for. Raises UnfinishedError if not."""
    try:
        (found,) = records(io.BytesIO(body))
        elements_of(found)
        got = (cid_of(found), tag(found, "PUBCHEM_CONFORMER_ID"))
    except (DataError, ValueError) as error:
        raise UnfinishedError(
            f"got {body[:40]!r} … of {len(body):,} bytes: {error}; expected one SDF record"
        ) from error
    if (got[0], (got[1] or "").upper()) != (cid, name.upper()):
        raise UnfinishedError(f"got conformer {got[1]} of CID {got[0]}, expected {name} of CID {cid}")
    return found
