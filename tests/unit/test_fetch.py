"""Files arrive whole and verified, or not at all: against servers on this machine that misbehave in every known way."""

import hashlib
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fetching import BIG, leftovers, sha256
from mdlatent import download, fetch
from mdlatent.errors import DataError, FetchError
from server import Answer


def test_download_is_recorded_and_cached(server, place):
    output, options = place
    url = server.put("/a/top.pdb", BIG)
    record = fetch.fetch(f"{url}#sha256={sha256(BIG)}", output, options)
    assert output.read_bytes() == BIG
    assert json.loads(Path(f"{output}.source.json").read_text()) == record
    assert record["sha256"] == sha256(BIG) and record["bytes"] == len(BIG) and record["n_atoms"] == 3
    assert record["kind"] == "url" and record["file"] == "topology.pdb"
    fetch.fetch(url, output.with_name("again.pdb"), options)
    assert len(server.requests) == 1, "the second time it comes from the cache"
    assert leftovers(output.parent) == [
        "again.pdb",
        "again.pdb.source.json",
        "topology.pdb",
        "topology.pdb.source.json",
    ]


def test_damage_in_the_cache_is_found(server, place, tmp_path):
    output, options = place
    url = server.put("/top.pdb", BIG)
    fetch.fetch(url, output, options)
    (kept,) = (tmp_path / "cache").rglob("top.pdb")
    kept.unlink()
    kept.write_bytes(BIG[:-5] + b"XXXXX")
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG and len(server.requests) == 2


@pytest.mark.parametrize("etag", ['"v1"', None], ids=["etag", "checksum only"])
def test_cut_off_download_goes_on_where_it_broke(server, place, etag):
    output, options = place
    url = server.put("/top.pdb", BIG, etag)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000), Answer(cut_after=100_000)]
    fetch.fetch(f"{url}#sha256={sha256(BIG)}", output, options)
    assert output.read_bytes() == BIG
    first, second, third = server.ranges("/top.pdb")
    assert first is None
    begin = [int(header.removeprefix("bytes=").rstrip("-")) for header in (second, third)]
    assert 200_000 < begin[0] <= 300_000 and begin[0] < begin[1] <= 400_000


def test_next_run_goes_on_where_the_last_one_gave_up(server, place, tmp_path):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000)]
    with pytest.raises(FetchError, match=r"given up after 1 tries.*broke off.*MB that arrived are kept: run again"):
        fetch.fetch(url, output, {**options, "attempts": 1})
    assert not output.exists() and leftovers(output.parent) == []
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG and server.ranges("/top.pdb")[1] is not None


def test_without_etag_and_checksum_it_starts_again(server, place):
    """Nothing would tell whether the two halves belong together."""
    output, options = place
    url = server.put("/top.pdb", BIG, etag=None)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000)]
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG and server.ranges("/top.pdb") == [None, None]


def test_server_without_ranges(server, place):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000), Answer(ignore_range=True)]
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_file_that_changes_between_tries(server, place, honours_if_range, monkeypatch):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000)]
    newer = BIG.replace(b"xxx", b"yyy")

    def change(path: str) -> None:
        if len(server.requests) == 2:
            server.put(path, newer, '"v2"')
            if not honours_if_range:
                server.requests[-1][1].pop("if-range")

    server.before = change
    fetch.fetch(url, output, options)
    assert output.read_bytes() == newer


def test_halves_that_do_not_fit_are_loaded_afresh(server, place):
    """No ETag: only the checksum tells that the file was exchanged during the break."""
    output, options = place
    newer = BIG.replace(b"xxx", b"yyy")
    url = server.put("/top.pdb", BIG, etag=None)
    server.plan["/top.pdb"] = [Answer(cut_after=300_000)]
    server.before = lambda path: server.put(path, newer, None) if len(server.requests) == 2 else None
    fetch.fetch(f"{url}#sha256={sha256(newer)}", output, options)
    assert output.read_bytes() == newer and server.ranges("/top.pdb")[2] is None


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_wrong_bytes_are_refused_and_not_kept(server, place, tmp_path, algorithm):
    output, options = place
    url = server.put("/top.pdb", BIG)
    wanted = hashlib.new(algorithm, b"something else").hexdigest()
    with pytest.raises(FetchError, match=f"checksum is wrong: got {algorithm} .*expected {wanted}.*thrown away"):
        fetch.fetch(f"{url}#{algorithm}={wanted}", output, options)
    assert leftovers(tmp_path) == [], "neither at the output nor in the cache"
    assert len(server.requests) == 1, "the same bytes again would be no better"


def test_404_is_final(server, place):
    output, options = place
    with pytest.raises(FetchError, match=r"answered 404 Not Found.*Check the address"):
        fetch.fetch(f"{server.base}/none.pdb", output, options)
    assert len(server.requests) == 1 and not output.exists()


@pytest.mark.parametrize("status", [202, 429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(server, place, status):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(status), Answer(status)]
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG and len(server.requests) == 3


def test_tries_are_counted(server, place):
    output, options = place
    server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(500)] * 9
    with pytest.raises(FetchError, match=r"given up after 3 tries; the last one: 127.0.0.1 answered 500"):
        fetch.fetch(f"{server.base}/top.pdb", output, options)
    assert len(server.requests) == 3


def test_retry_after_is_honoured(server, place, monkeypatch):
    output, options = place
    waits: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [
        Answer(503, headers={"Retry-After": "7"}),
        Answer(503, headers={"Retry-After": soon}),
    ]
    fetch.fetch(url, output, options)
    assert waits[0] == 7 and 25 < waits[1] <= 30
    server.plan["/b.pdb"] = [Answer(503, headers={"Retry-After": "86400"})]
    with pytest.raises(FetchError, match="asks to come back in 86400 s"):
        fetch.fetch(server.put("/b.pdb", BIG), output, options)


def test_back_off_doubles():
    policy = download.Policy(backoff_s=2.0)
    assert [policy.wait_s(attempt, None) for attempt in (1, 2, 3, 4)] == [2, 4, 8, 16]
    assert policy.wait_s(1, 5.0) == 5


def test_stalled_connection_is_given_up_and_resumed(server, place):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(stall_after=300_000)]
    began = time.monotonic()
    fetch.fetch(url, output, {**options, "timeout_s": 0.5})
    assert output.read_bytes() == BIG and time.monotonic() - began < 3
    assert server.ranges("/top.pdb")[1] is not None


def test_slow_is_not_stalled(server, place):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(pause_s=0.03)]
    fetch.fetch(url, output, {**options, "timeout_s": 0.5})
    assert output.read_bytes() == BIG and len(server.requests) == 1


@pytest.mark.parametrize("claim", [len(BIG) + 1000, len(BIG) - 1000])
def test_a_lie_about_the_length(server, place, claim):
    """Too much: the server itself says on the next try that nothing is missing. Too little: the checksum tells."""
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(claim_bytes=claim)]
    if claim > len(BIG):
        fetch.fetch(url, output, options)
        assert output.read_bytes() == BIG
        server.plan["/other.pdb"] = [Answer(claim_bytes=claim, ignore_range=True) for _ in range(3)]
        with pytest.raises(FetchError, match="broke off"):
            fetch.fetch(server.put("/other.pdb", BIG), output, options)
    else:
        with pytest.raises(FetchError, match="checksum is wrong"):
            fetch.fetch(f"{url}#sha256={sha256(BIG)}", output, options)


def test_no_length_at_all(server, place):
    output, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(chunked=True)]
    fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG


def test_a_web_page_is_no_data(server, place):
    output, options = place
    server.types["/top.pdb"] = "text/html; charset=utf-8"
    with pytest.raises(FetchError, match="sent a web page"):
        fetch.fetch(server.put("/top.pdb", b"<html>please log in</html>"), output, options)
    server.types["/b.pdb"] = "application/octet-stream"
    with pytest.raises(DataError, match=r"topology.pdb .*\(it is a web page\)"):
        fetch.fetch(server.put("/b.pdb", b"<!DOCTYPE html><html></html>"), output, options)
    assert not output.exists()


def test_no_server_there(place):
    output, options = place
    with pytest.raises(FetchError, match=r"127\.0\.0\.1.*given up after 3 tries.*connection was refused"):
        fetch.fetch("http://127.0.0.1:9/top.pdb", output, options)


def test_redirects_are_followed_and_logins_kept_secret(server, place):
    output, options = place
    server.put("/real.pdb", BIG)
    server.redirects["/files/1"] = "/real.pdb"
    url = server.base.replace("http://", "http://me:secret@") + "/files/1#name=top.pdb"
    record = fetch.fetch(url, output, options)
    assert output.read_bytes() == BIG
    assert "secret" not in json.dumps(record)


def test_two_at_once_load_it_once(server, place, tmp_path):
    _, options = place
    url = server.put("/top.pdb", BIG)
    server.plan["/top.pdb"] = [Answer(pause_s=0.02)]
    outputs = [tmp_path / f"{i}.pdb" for i in range(4)]
    workers = [threading.Thread(target=fetch.fetch, args=(url, output, options)) for output in outputs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [output.read_bytes() == BIG for output in outputs] == [True] * 4
    assert len(server.requests) == 1
