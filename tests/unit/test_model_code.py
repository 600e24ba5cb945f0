"""A model is trained again when a module of its family changes: the rules name all that its own module imports."""

import ast
import re

import pytest

from mdlatent.models import FAMILIES
from support import ROOT

MODELS = ROOT / "workflow" / "mdlatent" / "models"


def named() -> dict[str, list[str]]:
    """The modules that the rules name for each family, beside its own and models/base.py."""
    text = (ROOT / "workflow" / "rules" / "models.smk").read_text()
    table = re.search(r"^FAMILY_MODULES = (\{.*?^\})", text, re.MULTILINE | re.DOTALL)
    assert table
    return ast.literal_eval(table[1])


def imported(module: str) -> set[str]:
    """Files in `models/` that a module there imports, and those that these import in turn."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for node in ast.walk(ast.parse((MODELS / waiting.pop()).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = {f"{name.removeprefix('mdlatent.models.')}.py" for name in names}
                new = {file for file in files if (MODELS / file).exists()} - found
                found |= new
                waiting += new
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_modules_are_named(family: str) -> None:
    wanted = imported(f"{family}.py") - {"base.py"}
    assert {f"models/{file}" for file in wanted} <= set(named()[family])
