"""Every kind of address is fetched: archive members, local files, FTP, repositories by DOI, Python packages."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fetching import BIG, PDB, leftovers, sha256
from mdlatent import fetch
from mdlatent.errors import ConfigError, FetchError
from server import Answer, FtpServer


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
