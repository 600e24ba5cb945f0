"""Bulk files of PubChem3D: fetched, verified, filtered as a stream; the command; what the benchmark says to them."""

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from rdkit import RDConfig

from fetching import leftovers
from mdlatent import stage
from mdlatent.conformers import benchmark, provenance, pubchem, pubchem_bulk, pubchem_records, sdf
from mdlatent.conformers import train as train_statistics
from mdlatent.conformers.pubchem_records import ELEMENTS, Filters
from mdlatent.errors import ConfigError, DataError, FetchError
from pubchem3d import BUTANOL, DIETHYLAMINE, IODIDE, OCTANE, PROPANOL, REST, list_path, offer, records
from server import Answer, FtpServer
from support import ROOT, peak_growth

NAME = "00000001_00025000"
PATH = f"/SDF/{NAME}.sdf.gz"


@pytest.fixture(scope="module")
def compounds() -> dict[int, list[bytes]]:
    numbers = {PROPANOL: 4, BUTANOL: 1, IODIDE: 3, OCTANE: 3, DIETHYLAMINE: 2}
    return {cid: records(cid, n) for cid, n in numbers.items()}


@pytest.fixture(scope="module")
def packed(compounds) -> bytes:
    return gzip.compress(b"".join(b"".join(found) for found in compounds.values()), mtime=0)


def put(server, content: bytes, md5: str | None = None, etag: str | None = '"v1"') -> str:
    """Offer a bulk file and its checksum; the address of the folder."""
    server.put(PATH, content, etag)
    server.put(f"{PATH}.md5", f"{md5 or hashlib.md5(content).hexdigest()}  {NAME}.sdf.gz\n".encode())
    return server.base + "/SDF"


@pytest.fixture
def get(server, place, tmp_path):
    _, options = place

    def run(names, filters=None, base=server.base + "/SDF", output=tmp_path / "out" / "many.sdf.gz"):
        return pubchem.from_bulk(names, output, filters or Filters(), options, base)

    return run


def asked(server) -> list[str]:
    return [path for path, _ in server.requests]


def test_a_bulk_file_is_verified_recorded_and_cached(server, get, compounds, packed, tmp_path):
    put(server, packed)
    record = get([NAME])
    output = tmp_path / "out" / "many.sdf.gz"
    assert gzip.decompress(output.read_bytes()) == gzip.decompress(packed)
    found, refused = sdf.read_sdf(output, duplicate_angstrom=0)
    assert {int(one.name): one.mol.GetNumConformers() for one in found} == {k: len(v) for k, v in compounds.items()}
    assert not refused
    assert json.loads(Path(f"{output}.source.json").read_text()) == record
    (about,) = record["files"]
    assert about["url"] == server.base + PATH and about["bytes"] == len(packed) and about["fetched"][:2] == "20"
    assert about["md5"] == hashlib.md5(packed).hexdigest() and about["sha256"] == hashlib.sha256(packed).hexdigest()
    assert "OMEGA" in record["generated_by"] and record["n_conformers"] == 13
    get([NAME], output=tmp_path / "again.sdf")
    assert asked(server) == [f"{PATH}.md5", PATH], "the second time it comes from the cache"


def test_filters(server, get, packed, compounds):
    put(server, packed)
    filters = Filters(5, ELEMENTS - {"I"}, min_conformers=2, max_conformers=3)
    record = get([NAME], filters)
    assert record["n_molecules"] == 2 and record["n_conformers"] == 3 + 2
    assert record["left_out"] == {
        "fewer than 2 conformers": 1, "an element that is not allowed": 1, "more than 5 heavy atoms": 1,
    }  # fmt: skip
    assert get([NAME], Filters(at_most=2))["left_out"] == {}
    with pytest.raises(DataError, match=r"got no molecule for many.sdf.gz: 5 × fewer than 5 conformers; give"):
        get([NAME], Filters(min_conformers=5))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"elements": frozenset({"C", "Pt"})}, "--elements: got Pt; PubChem3D has only"),
        ({"elements": frozenset()}, "--elements: got none"),
        ({"min_conformers": 11}, "--min-conformers: got 11, more than --max-conformers 10"),
        ({"at_most": 0}, "--at-most: got 0, expected 1 or more"),
    ],
)
def test_filters_that_nothing_passes(wrong, says):
    with pytest.raises(ConfigError, match=says):
        Filters(**wrong)


def test_cut_off_download_goes_on_in_the_next_run(server, get, packed, place, tmp_path):
    put(server, packed, etag=None)
    server.plan[PATH] = [Answer(cut_after=500)] + [Answer(cut_after=0)] * 2
    with pytest.raises(FetchError, match=r"given up after 3 tries.*run again"):
        get([NAME])
    assert leftovers(tmp_path / "out") == []
    assert get([NAME])["n_molecules"] == 5
    assert server.ranges(PATH)[-1] == "bytes=500-"


def test_a_lying_checksum(server, get, packed, tmp_path):
    put(server, packed, md5="0" * 32)
    with pytest.raises(FetchError, match=f"checksum is wrong: got md5 .*expected {'0' * 32}.*thrown away"):
        get([NAME])
    assert NAME not in " ".join(leftovers(tmp_path)), "neither at the output nor in the cache"
    server.put(f"{PATH}.md5", b"<html>")
    with pytest.raises(FetchError, match=r"sdf.gz.md5: got '<html>', expected 32 hex digits.*#md5="):
        get([NAME])
    assert get([f"{server.base}{PATH}#md5={hashlib.md5(packed).hexdigest()}"])["n_molecules"] == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_tried_again(server, get, packed, status):
    put(server, packed)
    server.plan[f"{PATH}.md5"] = [Answer(status)]
    server.plan[PATH] = [Answer(status)]
    assert get([NAME])["n_molecules"] == 5


def test_without_a_checksum_beside_it(server, get, packed, caplog):
    put(server, packed)
    del server.files[f"{PATH}.md5"]
    assert "md5" not in get([NAME])["files"][0]
    assert "there is no checksum" in caplog.text
    with pytest.raises(FetchError, match="answered 404"):
        get(["00000007_00000009"])


def test_by_ftp_with_and_without_checksum(get, packed):
    md5 = hashlib.md5(packed).hexdigest().encode()
    for content in ({f"{PATH}.md5": md5}, {}):
        with FtpServer({PATH: packed, **content}, cuts=1) as ftp:
            (about,) = get([f"{ftp.base}{PATH}"])["files"]
            assert ("md5" in about) == bool(content)


def test_files_on_this_machine(get, packed, tmp_path):
    path = tmp_path / "some.sdf.gz"
    path.write_bytes(packed)
    assert get([str(path)])["files"][0]["path"] == str(path)
    Path(f"{path}.md5").write_text(f"{'0' * 32}  some.sdf.gz\n")
    with pytest.raises(FetchError, match=r"some.sdf.gz: the checksum is wrong.*from some.sdf.gz.md5"):
        get([str(path)])
    with pytest.raises(FetchError, match="there is no such file"):
        get([str(tmp_path / "none.sdf.gz")])
    with pytest.raises(ConfigError, match=r"--bulk: got '00000001', expected a range of CIDs as in 00000001_00025000"):
        get(["00000001"])


def test_damaged_and_foreign_files(get, packed, compounds, tmp_path):
    path = tmp_path / "cut.sdf.gz"
    path.write_bytes(packed[:-300])
    with pytest.raises(FetchError, match=r"cut.sdf.gz: cannot be unpacked.*load it again"):
        get([str(path)])
    path.write_bytes(packed[:200] + bytes(50) + packed[250:])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        get([str(path)])
    plain = tmp_path / "cut.sdf"
    plain.write_bytes(gzip.decompress(packed)[:-100])
    with pytest.raises(DataError, match=r"cut.sdf: it ends within a record"):
        get([str(plain)])
    plain.write_bytes(b"no SDF at all\n" * 100_000)
    with pytest.raises(DataError, match=r"without a line `\$\$\$\$`"):
        get([str(plain)])
    assert leftovers(tmp_path / "out") == []


def test_broken_and_flat_records_are_counted_and_the_others_go_on(get, compounds, tmp_path):
    one, other = compounds[PROPANOL], compounds[OCTANE]
    short = b"\n".join(line for line in one[1].split(b"\n") if b" H  " not in line)
    nameless = b"x\n" + other[0].partition(b"\n")[2].replace(b"PUBCHEM_COMPOUND_CID", b"OTHER")
    flat = other[0].replace(b"RDKit          3D", b"RDKit          2D")
    assert flat != other[0]
    path = tmp_path / "some.sdf"
    path.write_bytes(one[0] + short + one[2] + nameless + flat + b"".join(compounds[DIETHYLAMINE]))
    record = get([str(path)])
    assert record["n_molecules"] == 2 and record["n_conformers"] == 4
    assert record["left_out"] == {"broken record": 1, "record without a CID": 1, "flat (2-D) record": 1}


@pytest.mark.parametrize("read_bytes", [1, 7, 1000, 1 << 20])
def test_records_are_found_wherever_a_piece_ends(compounds, monkeypatch, read_bytes):
    monkeypatch.setattr(pubchem_records, "READ_BYTES", read_bytes)
    found = compounds[DIETHYLAMINE]
    assert list(pubchem_records.records(io.BytesIO(b"".join(found)))) == found
    assert list(pubchem_records.records(io.BytesIO(b"".join(found)[:-1]))) == found, "no line end at the end"
    crlf = b"".join(found).replace(b"\n", b"\r\n")
    assert [pubchem_records.cid_of(one) for one in pubchem_records.records(io.BytesIO(crlf))] == [DIETHYLAMINE] * 2
    assert list(pubchem_records.records(io.BytesIO(b"\n"))) == []


def test_titles_are_the_cid(get, compounds, tmp_path):
    path = tmp_path / "some.sdf"
    path.write_bytes(b"".join(b"other\n" + one.partition(b"\n")[2] for one in compounds[PROPANOL]))
    get([str(path)], output=tmp_path / "out.sdf")
    (found,), _ = sdf.read_sdf(tmp_path / "out.sdf", duplicate_angstrom=0)
    assert found.name == str(PROPANOL) and found.mol.GetNumConformers() == 4


def test_memory_does_not_grow_with_the_file(compounds, tmp_path):
    """14 MB of records, one compound at a time."""
    path = tmp_path / "large.sdf.gz"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        for cid in range(1, 501):
            handle.write(b"".join(one.replace(b"\n1031\n", b"\n%d\n" % cid) for one in compounds[PROPANOL]) * 5)
    with peak_growth() as grown:
        n = sum(len(group.records) for group in pubchem_bulk.groups(path, 10, Counter()))
    assert n == 5_000
    assert grown["bytes"] < 4e6


def run_cli(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mdlatent.conformers.pubchem", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "MDLATENT_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_command_line(server, packed, tmp_path):
    put(server, packed)
    output, cids = tmp_path / "a.sdf.gz", tmp_path / "cids.txt"
    bulk = ("--bulk", NAME, "--bulk-url", server.base + "/SDF", "--elements", "h,c,O", "-o", str(output))
    done = run_cli(*bulk, cache=tmp_path / "cache")
    assert done.returncode == 0 and "3 molecules with 8 conformers" in done.stderr, done.stderr
    offer(server, BUTANOL, records(BUTANOL, 2))
    cids.write_text(f"5\n{BUTANOL}\n")
    rest = ("--rest", server.base + REST, "-o", str(tmp_path / "b.sdf"))
    done = run_cli("--file", str(cids), *rest, cache=tmp_path / "cache")
    assert done.returncode == 0 and "1 of 2 CIDs have no 3-D record: 5" in done.stderr, done.stderr
    done = run_cli("--file", str(tmp_path / "none.txt"), *rest, cache=tmp_path / "cache")
    assert done.returncode == 1 and "No such file" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("2244x", "-o", "a.sdf"), "got '2244x', expected a compound identifier"),
        (("-o", "a.sdf"), "give CIDs"),
        (("1", "--bulk", NAME, "-o", "a.sdf"), "not both"),
        (("1", "-o", "a.mol2"), "expected a name that ends in .sdf"),
        (("1", "-o", "a.sdf", "--elements", "C,Pt"), "--elements: got Pt"),
    ],
)
def test_wrong_commands(command, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        pubchem.main(list(command))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_midst_it_goes_on(server, tmp_path, number):
    """While the second compound is on its way: what was there is not asked for again."""
    offer(server, BUTANOL, records(BUTANOL, 2))
    paths = offer(server, OCTANE, records(OCTANE, 2))
    server.plan[paths[1]] = [Answer(stall_after=100)]
    command = (str(BUTANOL), str(OCTANE), "--rest", server.base + REST, "-o", str(tmp_path / "a.sdf"))
    running = subprocess.Popen(
        [sys.executable, "-m", "mdlatent.conformers.pubchem", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "MDLATENT_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while paths[1] not in asked(server):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    assert running.wait() == (stage.EXIT_RUN_AGAIN if number == signal.SIGTERM else -number)
    assert not (tmp_path / "a.sdf").exists()
    assert number == signal.SIGKILL or not list(tmp_path.glob(".a.sdf*"))
    server.requests.clear()
    assert run_cli(*command, cache=tmp_path / "cache").returncode == 0
    assert asked(server) == paths[1:] and list_path(OCTANE) not in asked(server)


def test_the_benchmark_refuses_what_a_generator_made(get, packed, compounds, tmp_path):
    source, output = tmp_path / "some.sdf.gz", tmp_path / "made.sdf.gz"
    source.write_bytes(packed)
    get([str(source)], output=output)
    command = [str(output), "--output-dir", str(tmp_path / "bench")]
    with pytest.raises(
        DataError, match=r"made.sdf.gz: got conformers made by a generator, PubChem3D: .*training alone"
    ):
        benchmark.main(command)
    assert not (tmp_path / "bench").exists()
    train_statistics.main([str(output), "--output", str(tmp_path / "torsions.npz")])  # to train on them is allowed
    # Without tags the record alone tells, without record the tags.
    record = Path(f"{output}.source.json")
    with gzip.open(output, "wt") as handle:
        handle.write("".join(one.decode().partition("> <")[0] + "$$$$\n" for one in compounds[BUTANOL]))
    assert "OMEGA" in provenance.generator_of(output)
    record.write_text("{")
    with pytest.raises(DataError, match=r"made.sdf.gz.source.json: got a record that cannot be read"):
        benchmark.main(command)
    record.unlink()
    assert provenance.generator_of(output) == ""
    with pytest.raises(DataError, match="PubChem3D"):
        provenance.check_references([source])
    cdk2 = Path(RDConfig.RDContribDir) / "Fastcluster" / "testdata" / "cdk2.sdf"
    provenance.check_references([cdk2, tmp_path / "none.sdf"])


def test_own_conformers_are_no_references_either(tmp_path):
    output = tmp_path / "own.sdf"
    command = [sys.executable, "-m", "mdlatent", "conformers", "CCCO", "-n", "2", "-o", str(output)]
    subprocess.run(command, check=True, cwd=ROOT / "workflow", capture_output=True)
    with pytest.raises(DataError, match="made by a generator, mdlatent conformers"):
        provenance.check_references([output])
