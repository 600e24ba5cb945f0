"""Records as PubChem3D writes them, made by RDKit, and a server that answers like PUG REST."""

import json
from collections.abc import Iterable

from rdkit import Chem
from rdkit.Chem import AllChem

from server import Server

REST = "/rest/pug"
NOT_FOUND = json.dumps({"Fault": {"Code": "PUGREST.NotFound", "Message": "No 3-D conformers found"}}).encode()
PROPANOL, BUTANOL, DIETHYLAMINE, IODIDE, OCTANE = 1031, 263, 8021, 33643, 356
SMILES = {PROPANOL: "CCCO", BUTANOL: "CCCCO", DIETHYLAMINE: "CCNCC", IODIDE: "CCCI", OCTANE: "CCCCCCCC"}


def conformer_name(cid: int, number: int) -> str:
    """PubChem's name of a conformer: the CID and its number, as hexadecimals."""
    return f"{cid:08X}{number:08X}"


def records(cid: int, n: int) -> list[bytes]:
    """`n` records of a compound."""
    mol = Chem.AddHs(Chem.MolFromSmiles(SMILES[cid]))
    AllChem.EmbedMultipleConfs(mol, n, randomSeed=1)
    mol.SetProp("_Name", str(cid))
    return [record(Chem.MolToMolBlock(mol, confId=i), cid, i + 1) for i in range(n)]


def record(block: str, cid: int, number: int) -> bytes:
    tags = {
        "PUBCHEM_COMPOUND_CID": cid,
        "PUBCHEM_CONFORMER_DIVERSEORDER": "1\n2",
        "PUBCHEM_CONFORMER_ID": conformer_name(cid, number),
        "PUBCHEM_MMFF94_ENERGY": 1.5,
    }
    return (block + "".join(f"> <{name}>\n{value}\n\n" for name, value in tags.items()) + "$$$$\n").encode()


def offer(server: Server, cid: int, found: Iterable[bytes]) -> list[str]:
    """Let the server have a compound; the paths of its conformers."""
    server.missing = NOT_FOUND
    found = list(found)
    names = [conformer_name(cid, i + 1) for i in range(len(found))]
    listed = {"InformationList": {"Information": [{"CID": cid, "ConformerID": names}]}}
    server.put(list_path(cid), json.dumps(listed).encode())
    paths = [f"{REST}/conformers/{name}/SDF" for name in names]
    for path, content in zip(paths, found, strict=True):
        server.put(path, content)
    return paths


def list_path(cid: int) -> str:
    return f"{REST}/compound/cid/{cid}/conformers/JSON"
