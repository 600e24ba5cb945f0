"""Files arrive whole and verified, or not at all: against servers on this machine that misbehave in every known way."""

import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mdlatent import download, fetch, sources
from mdlatent.errors import ConfigError, DataError, FetchError
from server import Answer, FtpServer, Server

PDB = (
    b"ATOM      1  N   ALA A   1       0.000   0.000   0.000  1.00  0.00           N  \n"
    b"ATOM      2  CA  ALA A   1       1.450   0.000   0.000  1.00  0.00           C  \n"
    b"ATOM      3  C   ALA A   1       2.000   1.400   0.000  1.00  0.00           C  \n"
    b"END\n"
)
# 600 kB, so that it comes in many pieces; a pdb with a long remark is still one that mdtraj reads
BIG = b"REMARK " + b"x" * 60 + b"\n" + b"".join(b"REMARK %070d\n" % i for i in range(7500)) + PDB


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def place(tmp_path):
    """Output path and fetch options with a cache of its own and no patience."""
    return tmp_path / "out" / "topology.pdb", {
        "attempts": 3, "timeout_s": 5.0, "backoff_s": 0.01, "cache": str(tmp_path / "cache"),
    }  # fmt: skip


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leftovers(folder: Path) -> list[str]:
    """Files in a folder and below, locks left out."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


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


def test_compressed_files_are_unpacked(server, place):
    output, options = place
    packed = gzip.compress(PDB)
    record = fetch.fetch(f"{server.put('/top.pdb.gz', packed)}#sha256={sha256(packed)}", output, options)
    assert output.read_bytes() == PDB
    assert record["sha256"] == sha256(PDB) and record["compressed_sha256"] == sha256(packed)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch.fetch(server.put("/b.pdb.gz", packed[:-20]), output.with_name("b.pdb"), options)


def zipped(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_member_of_an_archive(server, place, pack):
    output, options = place
    archive = pack({"set/readme.txt": b"hello", "set/data/top.pdb": PDB})
    url = server.put("/set.archive", archive)
    uri = f"{url}#member=set/data/top.pdb&sha256={sha256(PDB)}&archive-sha256={sha256(archive)}"
    record = fetch.fetch(uri, output, options)
    assert output.read_bytes() == PDB and record["member"] == "set/data/top.pdb"
    fetch.fetch(f"{url}#member=data/top.pdb", output, options)  # without the folder that wraps all of it
    with pytest.raises(FetchError, match=r"no file 'set/top.pdb'.*did you mean 'set/data/top.pdb'"):
        fetch.fetch(f"{url}#member=set/top.pdb", output.with_name("b.pdb"), options)
    with pytest.raises(FetchError, match="checksum is wrong"):
        fetch.fetch(f"{url}#member=data/top.pdb&sha256={sha256(b'')}", output.with_name("b.pdb"), options)
    assert not output.with_name("b.pdb").exists()
    assert len(server.requests) == 1


def test_local_files_are_linked(place, tmp_path, monkeypatch):
    output, options = place
    monkeypatch.chdir(tmp_path)
    Path("top.pdb").write_bytes(PDB)
    record = fetch.fetch(f"top.pdb#sha256={sha256(PDB)}", output, options)
    assert output.is_symlink() and output.resolve() == (tmp_path / "top.pdb").resolve()
    assert record["path"] == str(tmp_path / "top.pdb") and record["sha256"] == sha256(PDB)
    Path("set.zip").write_bytes(zipped({"top.pdb": PDB}))
    fetch.fetch("set.zip#member=top.pdb", output, options)
    assert output.read_bytes() == PDB and not output.is_symlink()


def test_local_mistakes(place, tmp_path):
    output, options = place
    with pytest.raises(FetchError, match="there is no such file"):
        fetch.fetch(str(tmp_path / "none.pdb"), output, options)
    (tmp_path / "folder.pdb").mkdir()
    with pytest.raises(FetchError, match="it is a folder"):
        fetch.fetch(str(tmp_path / "folder.pdb"), output, options)
    (tmp_path / "top.pdb").write_bytes(PDB)
    with pytest.raises(FetchError, match="checksum is wrong"):
        fetch.fetch(f"{tmp_path}/top.pdb#md5={'0' * 32}", output, options)
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.pdb"):
        fetch.fetch(f"{tmp_path}/top.pdb", output.with_suffix(".gro"), options)
    assert leftovers(output.parent) == []


def test_ftp(place):
    output, options = place
    with FtpServer({"/pub/top.pdb": BIG}, cuts=1) as server:
        fetch.fetch(f"{server.base}/pub/top.pdb", output, options)
        assert output.read_bytes() == BIG
        (rest,) = [command for command in server.commands if command.startswith("REST")]
        assert 0 < int(rest.split()[1]) < len(BIG)
        with pytest.raises(FetchError, match=r"refused .*550 no such file"):
            fetch.fetch(f"{server.base}/pub/none.pdb", output, options)


@pytest.fixture
def repositories(server, monkeypatch):
    """doi.org, Zenodo, figshare and a Dataverse on the loopback server: pooch's own requests go there."""
    import requests

    hosts = ("doi.org", "zenodo.org", "figshare.com", "api.figshare.com", "data.example.org")

    def rerouted(url: str, **options: Any) -> Any:
        host, _, rest = url.removeprefix("https://").partition("/")
        response = original(f"{server.base}/{host}/{rest}" if host in hosts else url, **options)
        response.url = response.url.replace(server.base + "/", "https://") if host in hosts else response.url
        return response

    original = requests.get
    monkeypatch.setattr(requests, "get", rerouted)

    def answer(path: str, content: Any = "") -> None:
        server.put(path, json.dumps(content).encode())

    md5 = hashlib.md5(PDB).hexdigest()
    link = server.put("/storage/top.pdb", PDB)
    server.redirects["/doi.org/10.5281/zenodo.77"] = f"{server.base}/zenodo.org/records/77"
    answer("/zenodo.org/records/77")
    answer(
        "/zenodo.org/api/records/77",
        {
            "id": 77,
            "metadata": {"license": {"id": "cc-by-4.0"}},
            "files": [{"key": "top.pdb", "checksum": f"md5:{md5}", "links": {"self": link}}],
        },
    )
    server.redirects["/doi.org/10.6084/m9.figshare.5.v2"] = f"{server.base}/figshare.com/articles/5"
    answer("/figshare.com/articles/5")
    answer("/api.figshare.com/v2/articles?doi=10.6084/m9.figshare.5.v2", [{"id": 5}])
    answer(
        "/api.figshare.com/v2/articles/5/versions/2",
        {"files": [{"name": "top.pdb", "computed_md5": md5, "download_url": link}]},
    )
    server.redirects["/doi.org/10.7910/DVN/ABC"] = f"{server.base}/data.example.org/dataset?id=9"
    answer("/data.example.org/dataset?id=9")
    listed = {"filename": "top.pdb", "id": 3, "md5": md5}
    answer(
        "/data.example.org/api/datasets/:persistentId?persistentId=doi:10.7910/DVN/ABC",
        {"data": {"latestVersion": {"files": [{"dataFile": listed}]}}},
    )
    server.put("/data.example.org/api/access/datafile/3", PDB)
    return server


@pytest.mark.parametrize("doi", ["10.5281/zenodo.77", "10.6084/m9.figshare.5.v2", "10.7910/DVN/ABC"])
def test_doi(repositories, place, doi):
    output, options = place
    record = fetch.fetch(f"doi:{doi}/top.pdb", output, options)
    assert output.read_bytes() == PDB
    assert record["kind"] == "doi" and record["citation"] == f"https://doi.org/{doi}" and record["url"]
    assert record.get("licence") == ("cc-by-4.0" if "zenodo" in doi else None)
    asked = len(repositories.requests)
    fetch.fetch(f"doi:{doi}/top.pdb", output, options)
    assert len(repositories.requests) == asked, "from the cache, without asking anyone"
    with pytest.raises(FetchError, match=r"no file 'tip.pdb'; its files are: top.pdb"):
        fetch.fetch(f"doi:{doi}/tip.pdb", output.with_name("b.pdb"), options)


def test_doi_checksum_of_the_repository_counts(repositories, place):
    output, options = place
    repositories.put("/storage/top.pdb", PDB.replace(b"ALA", b"GLY"))
    with pytest.raises(FetchError, match="checksum is wrong: got md5"):
        fetch.fetch("doi:10.5281/zenodo.77/top.pdb", output, options)
    with pytest.raises(FetchError, match="there is no such DOI"):
        fetch.fetch("doi:10.5281/zenodo.78/top.pdb", output, options)
    repositories.plan["/zenodo.org/api/records/77"] = [Answer(500)] * 9
    with pytest.raises(FetchError, match=r"could not be asked|Expected a record"):
        fetch.fetch("doi:10.5281/zenodo.77/top.pdb", output, options)


@pytest.fixture
def package_index(server, monkeypatch, tmp_path):
    """A package index with a wheel `wheelset` and a source archive `sdistset` whose build script leaves a mark."""
    mark = tmp_path / "was-run"
    script = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='sdistset', version='1.0')\n"
    archives = {
        "wheelset-1.0-py3-none-any.whl": zipped(
            {
                "wheelset/data/top.pdb": PDB,
                "wheelset-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: wheelset\nVersion: 1.0\n",
                "wheelset-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                "wheelset-1.0.dist-info/RECORD": b"",
            }
        ),
        "sdistset-1.0.tar.gz": tarred(
            {
                "sdistset-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: sdistset\nVersion: 1.0\n",
                "sdistset-1.0/setup.py": script.encode(),
                "sdistset-1.0/sdistset/data/top.pdb": PDB,
            }
        ),
    }
    for name, content in archives.items():
        link = server.put(f"/files/{name}", content)
        page = f"<html><body><a href='{link}#sha256={sha256(content)}'>{name}</a></body></html>"
        path = f"/simple/{name.partition('-')[0]}/"
        server.put(path, page.encode())
        server.types[path] = "text/html"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.base}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return mark


@pytest.mark.parametrize("name", ["wheelset", "sdistset"])
def test_package(package_index, server, place, name):
    output, options = place
    uri = f"package:{name}==1.0/{name}/data/top.pdb#sha256={sha256(PDB)}"
    record = fetch.fetch(uri, output, options)
    assert output.read_bytes() == PDB and record["kind"] == "package" and record["archive"].startswith(f"{name}-1.0")
    asked = len(server.requests)
    fetch.fetch(uri, output, options)
    assert len(server.requests) == asked, "from the cache"
    with pytest.raises(FetchError, match=rf"no file '{name}/top.pdb'.*did you mean '.*{name}/data/top.pdb'"):
        fetch.fetch(f"package:{name}==1.0/{name}/top.pdb", output, options)
    assert not package_index.exists(), "no code of the package may be run"


def test_package_that_does_not_exist(package_index, server, place):
    output, options = place
    with pytest.raises(FetchError, match=r"wheelset==2\.0: pip found neither.*from versions: 1\.0"):
        fetch.fetch("package:wheelset==2.0/wheelset/data/top.pdb", output, options)
    server.put("/files/sdistset-1.0.tar.gz", tarred({"sdistset-1.0/sdistset/data/top.pdb": PDB + b"\n"}))
    with pytest.raises(FetchError, match=r"sdistset==1\.0: .*got sha256 .* as the index says"):
        fetch.fetch("package:sdistset==1.0/sdistset/data/top.pdb", output, options)
    assert not output.exists()


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2] / "workflow"
    limit = environment.pop("limit_bytes", None)
    return subprocess.run(
        [sys.executable, "-m", "mdlatent.fetch", *arguments],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit),) * 2)) if limit else None,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_command_line_says_what_is_wrong_without_traceback(server, tmp_path):
    output = tmp_path / "out" / "top.pdb"
    url = server.put("/top.pdb", BIG)
    done = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0 and output.read_bytes() == BIG, done.stderr
    wrong = run_cli(
        "--uri", f"{url}#sha256={'0' * 64}", "--output", str(tmp_path / "b.pdb"), MDLATENT_CACHE=str(tmp_path)
    )
    assert wrong.returncode == 1 and "checksum is wrong" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_limit_on_file_size_is_like_a_full_disk(server, tmp_path):
    output = tmp_path / "out" / "top.pdb"
    url = server.put("/top.pdb", BIG)
    cache = str(tmp_path / "cache")
    full = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=cache, limit_bytes="200000")
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert "takes no more" in full.stderr and "fetch.cache" in full.stderr
    assert leftovers(output.parent) == []
    again = run_cli("--uri", url, "--output", str(output), MDLATENT_CACHE=cache)
    assert again.returncode == 0 and output.read_bytes() == BIG and server.ranges("/top.pdb")[1] is not None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(server, place, small_disk):
    output, options = place
    url = server.put("/top.pdb", BIG)
    with pytest.raises(FetchError, match=r"needs 0\.6 MB more, but .* has only 0\.\d MB free"):
        fetch.fetch(url, output, {**options, "cache": str(small_disk)})
    assert len(leftovers(small_disk)) == 0 and len(server.requests) == 1
    server.plan["/top.pdb"] = [Answer(chunked=True)]
    with pytest.raises(FetchError, match=r"takes no more: No space left on device"):
        fetch.fetch(url, output, {**options, "cache": str(small_disk)})
    with pytest.raises(OSError, match="No space left"):  # stage.run adds the advice
        fetch.fetch(url, small_disk / "top.pdb", options)
    assert not (small_disk / "top.pdb").exists()


def test_unwritable_folders(server, place, tmp_path):
    output, options = place
    url = server.put("/top.pdb", PDB)
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"the download cache .* cannot be written.*fetch\.cache"):
        fetch.fetch(url, output, {**options, "cache": str(tmp_path / "file" / "cache")})
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        fetch.fetch(url, tmp_path / "file" / "top.pdb", options)


@pytest.mark.parametrize(
    ("uri", "kind", "ending"),
    [
        ("data/run1.DCD", "path", ".dcd"),
        ("run:1.xtc", "path", ".xtc"),
        ("a#b.pdb", "path", ".pdb"),
        ("top.pdb.gz", "path", ".pdb"),
        ("https://host/a/run.xtc?download=1", "url", ".xtc"),
        ("https://host/files/17#name=run.trr", "url", ".trr"),
        ("https://host/a.tar.gz#member=b/run.nc", "url", ".nc"),
        ("ftp://host/a/run.xtc#md5=" + "0" * 32, "url", ".xtc"),
        ("doi:10.5281/zenodo.1/run.xtc", "doi", ".xtc"),
        ("doi:10.7910/DVN/ABC/run.dcd", "doi", ".dcd"),
        ("package:a-b==1.2.3/c/run.dcd", "package", ".dcd"),
    ],
)
def test_addresses(uri, kind, ending):
    assert sources.parse(uri).kind == kind
    assert sources.extension(uri) == ending
    assert sources.part_file_name(uri, 7) == f"part007{ending}"
    assert sources.is_local(uri) == (kind == "path")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "without blanks"),
        ("data/", "names a folder"),
        ("pacakge:a==1/b.dcd", "did you mean `package:`"),
        ("htps://host/a.dcd", "did you mean `https:`"),
        ("s3://bucket/a.dcd", "expected a path, or one of http, https, ftp, doi, package"),
        ("https:/host/a.dcd", "two slashes"),
        ("https:///a.dcd", "names no host"),
        ("https://host/", "names no file"),
        ("doi:10.5281/zenodo.1", "name of a file are needed"),
        ("doi:zenodo.1/a.dcd", "a DOI"),
        ("package:a/b.dcd", "an exact version"),
        ("package:a>=1/b.dcd", "an exact version"),
        ("package:a==1/b.dcd#member=c.dcd", "stands behind the version"),
        ("a.dcd#sha256=123", r"got sha256='123' \(3 characters\), expected 64 hex digits"),
        ("a.dcd#sha265=" + "0" * 64, "did you mean `sha256=`"),
        ("https://host/a.dcd#archive-sha256=" + "0" * 64, "needs `member=`"),
        ("https://host/files/17", r"expected one of .*#name=run1\.dcd"),
        ("a.tpr", "no format that can be read"),
        ("a.psf", "holds no trajectory"),
    ],
)
def test_malformed_addresses(uri, says):
    with pytest.raises(ConfigError, match=says):
        sources.part_file_name(uri, 0)


def test_formats_agree_with_mdtraj():
    from mdtraj.core.trajectory import _TOPOLOGY_EXTS
    from mdtraj.formats.registry import FormatRegistry

    assert set(_TOPOLOGY_EXTS) >= sources.TOPOLOGY - {".mmcif"}
    assert set(FormatRegistry.fileobjects) >= sources.TRAJECTORY - {".mmcif", ".hdf5"}


def test_reading_addresses_needs_no_heavy_import():
    heavy = ("numpy", "requests", "mdtraj", "yaml")
    code = f"import sys; import mdlatent.sources; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
