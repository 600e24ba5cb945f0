"""Files of data repositories (Zenodo, figshare, Dataverse) by their DOI: pooch finds address and checksum."""

import logging
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from mdlatent.download import Policy
from mdlatent.errors import FetchError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deposit:
    """Where a file of a record lies and what is known of it."""

    url: str
    checksums: dict[str, str] = field(default_factory=dict)  # {"md5": …} as the repository publishes it
    licence: str | None = None
    citation: str = ""


class _Registry:
    """Stands for the `pooch.Pooch` whose registry a repository fills."""

    def __init__(self) -> None:
        self.registry: dict[str, str] = {}


def resolve(location: str, policy: Policy) -> Deposit:
    """Ask the repository for the file `10.…/record/name`. Raises FetchError if it, or the file, cannot be found."""
    import requests
    from pooch.downloaders import doi_to_repository

    cut = 2 if "zenodo" in location.lower() else location.count("/")
    parts = location.split("/")
    doi, name = "/".join(parts[:cut]), "/".join(parts[cut:])
    for attempt in range(1, policy.attempts + 1):
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # pooch warns of figshare DOIs without version; said in the docs
                repository = doi_to_repository(doi, timeout=policy.timeout_s)
                known = _Registry()
                repository.populate_registry(known)
                if name not in known.registry:
                    names = ", ".join(sorted(known.registry)[:20]) or "none"
                    raise FetchError(f"doi:{doi}: the record has no file {name!r}; its files are: {names}")
                url = repository.download_url(name)
            break
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status == 404:
                raise FetchError(f"doi:{doi}: there is no such DOI; check it for typing errors") from error
            problem: Exception = error
        except requests.RequestException as error:  # also an answer that is no JSON
            problem = error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise FetchError(
                f"doi:{doi}: {error or type(error).__name__}. Expected a record of Zenodo, figshare or a Dataverse; "
                "for another repository give the file's own address (`https://…#sha256=…`)"
            ) from error
        if attempt == policy.attempts:
            raise FetchError(f"doi:{doi}: the repository could not be asked, {attempt} tries: {problem}") from problem
        wait_s = policy.wait_s(attempt, None)
        log.warning("try %d of %d: doi:%s: %s; again in %.1f s", attempt, policy.attempts, doi, problem, wait_s)
        time.sleep(wait_s)
    algorithm, _, value = known.registry[name].rpartition(":")
    checksums = {algorithm: value.lower()} if algorithm in ("md5", "sha256") and value else {}
    return Deposit(url, checksums, _licence(repository), f"https://doi.org/{doi}")


def _licence(repository: Any) -> str | None:
    """The licence where the repository's answer has it (Zenodo)."""
    answer = getattr(repository, "api_response", None)
    if isinstance(answer, dict) and isinstance(licence := answer.get("metadata", {}).get("license"), dict):
        return licence.get("id")
    return None
