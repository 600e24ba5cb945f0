"""Conformers by CID arrive whole or not at all: against a PUG REST on this machine that misbehaves."""

import gzip
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fetching import leftovers, sha256
from mdlatent.conformers import pubchem, pug_rest, sdf
from mdlatent.conformers.pubchem_records import ELEMENTS, Filters
from mdlatent.errors import ConfigError, DataError, FetchError
from pubchem3d import BUTANOL, DIETHYLAMINE, IODIDE, OCTANE, PROPANOL, REST, list_path, offer, records
from server import Answer


@pytest.fixture
def get(server, place, tmp_path):
    """Fetches CIDs from the server on this machine, without a pause between requests."""
    _, options = place
    options["timeout_s"] = 1.0

    def run(cids, filters=None, **changed):
        given = {"output": tmp_path / "out" / "some.sdf.gz", "interval_s": 0.0, "base": server.base + REST} | changed
        return pubchem.from_cids(cids, filters=filters or Filters(), options=options, **given)

    return run


def asked(server) -> list[str]:
    return [path for path, _ in server.requests]


def test_several_compounds_are_one_file_that_reads_as_molecules(server, get, tmp_path):
    offered = {cid: records(cid, 3) for cid in (BUTANOL, DIETHYLAMINE)}
    for cid, found in offered.items():
        offer(server, cid, found)
    record = get([DIETHYLAMINE, BUTANOL])
    output = tmp_path / "out" / "some.sdf.gz"
    found, refused = sdf.read_sdf(output, duplicate_angstrom=0)
    assert [(one.name, one.mol.GetNumConformers()) for one in found] == [(str(DIETHYLAMINE), 3), (str(BUTANOL), 3)]
    assert not refused
    assert gzip.decompress(output.read_bytes()) == b"".join(offered[DIETHYLAMINE] + offered[BUTANOL])
    assert json.loads(Path(f"{output}.source.json").read_text()) == record
    assert record["sha256"] == sha256(output.read_bytes()) and record["bytes"] == output.stat().st_size
    assert record["uri"].startswith(server.base) and record["date"][:2] == "20" and "OMEGA" in record["generated_by"]
    assert "public domain" in record["licence"] and record["n_molecules"] == 2 and record["n_conformers"] == 6
    plain = tmp_path / "out" / "plain.sdf"
    get([DIETHYLAMINE, BUTANOL], output=plain)
    assert plain.read_bytes() == gzip.decompress(output.read_bytes())
    assert len(server.requests) == 8, "the second time it comes from the cache"


def test_compounds_without_a_3d_record_are_named_and_the_others_go_on(server, get, caplog):
    offer(server, BUTANOL, records(BUTANOL, 2))
    record = get([5, BUTANOL, 7])
    assert record["missing"] == [5, 7] and record["n_molecules"] == 1 and record["n_asked"] == 3
    assert "CID 5: PubChem has no 3-D record" in caplog.text
    with pytest.raises(DataError, match="none has a 3-D record"):
        get([5, 7])


def test_a_wrong_address_is_not_taken_for_missing_compounds(server, get, tmp_path):
    offer(server, BUTANOL, records(BUTANOL, 2))
    server.missing = b"<html>no such page</html>"
    with pytest.raises(FetchError, match=r"404 Not Found for .*expected a conformer or PUGREST\.NotFound.*--rest"):
        get([BUTANOL], base=server.base + "/wrong")
    with pytest.raises(FetchError, match="no valid address"):
        get([BUTANOL], base="pubchem")
    with pytest.raises(FetchError, match=r"127\.0\.0\.1: the connection was refused"):
        get([BUTANOL], base="http://127.0.0.1:9")
    assert leftovers(tmp_path) == []


def test_a_listed_conformer_that_is_not_there(server, get, caplog):
    paths = offer(server, BUTANOL, records(BUTANOL, 3))
    del server.files[paths[1]]
    assert get([BUTANOL])["n_conformers"] == 2
    assert "is listed, but there is no record" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_passing_faults_are_tried_again(server, get, status):
    paths = offer(server, BUTANOL, records(BUTANOL, 2))
    server.plan[list_path(BUTANOL)] = [Answer(status), Answer(status)]
    server.plan[paths[1]] = [Answer(status)]
    assert get([BUTANOL])["n_conformers"] == 2
    assert len(server.requests) == 6


def test_tries_are_counted_and_what_arrived_is_kept(server, get, tmp_path):
    offer(server, BUTANOL, records(BUTANOL, 3))
    paths = offer(server, DIETHYLAMINE, records(DIETHYLAMINE, 3))
    server.plan[paths[1]] = [Answer(503)] * 3
    with pytest.raises(FetchError, match=r"given up after 3 tries; the last one: 127.0.0.1 answered 503.*run again"):
        get([BUTANOL, DIETHYLAMINE])
    assert not (tmp_path / "out" / "some.sdf.gz").exists() and leftovers(tmp_path / "out") == []
    server.requests.clear()
    assert get([BUTANOL, DIETHYLAMINE])["n_conformers"] == 6
    assert asked(server) == paths[1:], "only what was not there"


def test_refusals_are_final(server, get):
    offer(server, BUTANOL, records(BUTANOL, 1))
    server.plan[list_path(BUTANOL)] = [Answer(400)]
    with pytest.raises(FetchError, match="answered 400"):
        get([BUTANOL])
    assert len(server.requests) == 1


def test_the_pause_a_server_asks_for(server, get, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(pug_rest, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    offer(server, BUTANOL, records(BUTANOL, 1))
    server.plan[list_path(BUTANOL)] = [Answer(503, headers={"Retry-After": "7"})]
    get([BUTANOL])
    assert waits == [7]
    server.plan[list_path(PROPANOL)] = [Answer(503, headers={"Retry-After": "86400"})]
    with pytest.raises(FetchError, match=r"asks to come back in 86400 s.*is kept"):
        get([PROPANOL])


def test_broken_connections_and_wrong_records_are_asked_again(server, get):
    """Cut off with and without a length, stalled, slow, another conformer, a web page, no JSON."""
    found = records(BUTANOL, 7)
    paths = offer(server, BUTANOL, found)
    server.plan[list_path(BUTANOL)] = [Answer(cut_after=30), Answer(cut_after=30, chunked=True)]
    server.plan[paths[0]] = [Answer(cut_after=400)]
    server.plan[paths[1]] = [Answer(cut_after=400, chunked=True)]
    server.plan[paths[2]] = [Answer(stall_after=400)]
    server.plan[paths[3]] = [Answer(pause_s=0.1)]
    wrong = {4: found[0], 5: b"<html>busy</html>", 6: found[6].replace(b"\n263\n", b"\n264\n")}

    def lie_once(path: str) -> None:
        for number, content in list(wrong.items()):
            if path == paths[number]:
                first = asked(server).count(path) == 1
                server.put(path, content if first else found[number])

    server.before = lie_once
    assert get([BUTANOL])["n_conformers"] == 7
    assert [asked(server).count(path) for path in paths] == [2, 2, 2, 1, 2, 2, 2]
    assert asked(server).count(list_path(BUTANOL)) == 3


def test_records_that_stay_wrong_are_not_kept(server, get, tmp_path):
    found = records(BUTANOL, 2)
    offer(server, BUTANOL, [found[0], found[0]])
    with pytest.raises(FetchError, match=r"got conformer 0000010700000001 of CID 263, expected 0000010700000002"):
        get([BUTANOL])
    assert leftovers(tmp_path) == ["0000010700000001.sdf", "conformers.json"]


def test_damage_in_the_cache_is_found(server, get, tmp_path):
    paths = offer(server, BUTANOL, records(BUTANOL, 2))
    get([BUTANOL])
    (kept,) = (tmp_path / "cache").rglob("0000010700000002.sdf")
    kept.write_bytes(kept.read_bytes()[:-40])
    server.requests.clear()
    assert get([BUTANOL])["n_conformers"] == 2 and asked(server) == paths[1:]


def test_an_endless_answer_is_not_swallowed(server, get, monkeypatch):
    offer(server, BUTANOL, records(BUTANOL, 1))
    monkeypatch.setattr(pug_rest, "MOST_BYTES", 500)
    with pytest.raises(FetchError, match="got more than 500 bytes"):
        get([BUTANOL])


def test_no_more_is_fetched_than_the_filters_want(server, get):
    paths = {cid: offer(server, cid, records(cid, 3)) for cid in (PROPANOL, BUTANOL, IODIDE, OCTANE, DIETHYLAMINE)}
    few = offer(server, 1, records(PROPANOL, 1))
    filters = Filters(5, ELEMENTS - {"I"}, min_conformers=2, max_conformers=2, at_most=2)
    record = get([1, IODIDE, OCTANE, PROPANOL, BUTANOL, DIETHYLAMINE], filters)
    assert record["n_molecules"] == 2 and record["n_conformers"] == 4
    assert record["left_out"] == {
        "fewer than 2 conformers": 1, "an element that is not allowed": 1, "more than 5 heavy atoms": 1,
    }  # fmt: skip
    requests = asked(server)
    assert few[0] not in requests and list_path(DIETHYLAMINE) not in requests
    assert [sum(path in requests for path in paths[cid]) for cid in (IODIDE, OCTANE, PROPANOL)] == [1, 1, 2]


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_five_requests_a_second_and_fewer_when_told(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pug_rest, "time", clock)
    pace = pug_rest.Pace()
    begun = []
    for _ in range(11):
        pace.wait()
        begun.append(clock.now)
        clock.now += 0.05
    assert begun[-1] - begun[0] == pytest.approx(2.0), "eleven requests take two seconds"
    clock.now += 10
    pace.wait()
    assert len(clock.slept) == 10, "who is slow anyway does not wait"
    says = "Request Count status: {} (0%), Request Time status: Green (0%), Service status: {} (20%)"
    for colours, seconds in ((("Yellow", "Green"), 0.4), (("Green", "Red"), 1.0), (("Black", "Red"), 60.0)):
        pace.heed(says.format(*colours))
        pace.wait()
        assert clock.slept[-1] == pytest.approx(seconds)
    pace.heed(None)
    pace.wait()
    assert clock.slept[-1] == pytest.approx(0.2)


def test_the_header_of_an_answer_slows_down(server, get, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pug_rest, "time", clock)
    offer(server, BUTANOL, records(BUTANOL, 2))
    red = "Request Count status: Red (80%), Request Time status: Green (0%), Service status: Green (20%)"
    server.plan[list_path(BUTANOL)] = [Answer(headers={"X-Throttling-Control": red})]
    get([BUTANOL], interval_s=0.2)
    assert clock.slept == pytest.approx([1.0, 0.2])


def test_lists_of_cids(tmp_path):
    path = tmp_path / "cids.txt"
    path.write_text("# some\n2244\taspirin\n\n3672, ibuprofen\n2244\n")
    assert pubchem.read_cids(["5"], path) == [5, 2244, 3672]
    path.write_text("2244\naspirin\n")
    with pytest.raises(ConfigError, match=r"cids.txt, line 2: got 'aspirin', expected a compound identifier"):
        pubchem.read_cids([], path)
    with pytest.raises(ConfigError, match="CID: got '0'"):
        pubchem.read_cids(["0"], None)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="got no CID"):
        pubchem.read_cids([], path)
