"""What the tests of downloads share: files to serve, and what is left of them."""

import hashlib
from pathlib import Path

PDB = (
    b"ATOM      1  N   ALA A   1       0.000   0.000   0.000  1.00  0.00           N  \n"
    b"ATOM      2  CA  ALA A   1       1.450   0.000   0.000  1.00  0.00           C  \n"
    b"ATOM      3  C   ALA A   1       2.000   1.400   0.000  1.00  0.00           C  \n"
    b"END\n"
)
# 600 kB, so that it comes in many pieces; a pdb with a long remark is still one that mdtraj reads
BIG = b"REMARK " + b"x" * 60 + b"\n" + b"".join(b"REMARK %070d\n" % i for i in range(7500)) + PDB


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def leftovers(folder: Path) -> list[str]:
    """Files in a folder and below, locks left out."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")
