"""Addresses of files: what they may look like, and what is said of those that do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdlatent import sources
from mdlatent.errors import ConfigError


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
