"""Each rule's conda environment has the libraries that its program imports."""

import ast
import re
import sys
from pathlib import Path

import pytest

from support import ROOT

WORKFLOW = ROOT / "workflow"
NAMES = {"pytorch": "torch", "pyyaml": "yaml", "pytables": "tables", "scikit-learn": "sklearn"}
BROUGHT_ALONG = {"llvmlite", "scipy", "joblib", "urllib3"}  # by numba, scikit-learn or mdtraj, requests
NEVER_IN_RULES = {"horovod", "rich"}  # built by hand where wanted; for tables on a terminal
# Imported inside functions that the programs of these environments never call.
NOT_REACHED = {"frames": {"torch", "pooch", "requests"}, "report": {"torch"}}


def programs() -> list[tuple[str, str, str]]:
    """Rule, environment and program of all rules."""
    found = []
    for path in sorted((WORKFLOW / "rules").glob("*.smk")):
        for rule in re.split(r"\n\s*rule ", path.read_text())[1:]:
            environment = re.search(r"envs/(\w+)\.yaml", rule)
            for program in re.findall(r"python -m (mdlatent[\w.]*)", rule):
                assert environment, f"{path.name}: rule {rule.split(':')[0]} has no environment"
                found.append((rule.split(":")[0], environment[1], program))
    return found


def file_of(module: str) -> Path | None:
    path = WORKFLOW.joinpath(*module.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.exists()), None)


def libraries(program: str) -> set[str]:
    """What a program and the modules of ours that it may import, import from elsewhere."""
    seen: set[str] = set()
    waiting, found = [program], set()
    while waiting:
        module = waiting.pop()
        path = file_of(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            waiting += [name for name in names if name.startswith("mdlatent")]
            found |= {name.split(".")[0] for name in names if not name.startswith("mdlatent")}
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize(("rule", "environment", "program"), programs())
def test_a_rule_has_what_its_program_imports(rule: str, environment: str, program: str) -> None:
    there = re.findall(r"^  - ([\w-]+)=", (ROOT / "envs" / f"{environment}.yaml").read_text(), re.MULTILINE)
    there = {NAMES.get(name, name) for name in there} | BROUGHT_ALONG | NEVER_IN_RULES
    assert not libraries(program) - there - NOT_REACHED.get(environment, set())
