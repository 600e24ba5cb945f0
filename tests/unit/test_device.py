"""What every process that uses torch sets."""

import os
import subprocess
import sys
from pathlib import Path

import mdlatent

PACKAGE = Path(mdlatent.__file__).parent.parent


def test_results_are_reproducible_without_importing_a_compiler():
    """torch's own switch imports its compiler, which takes longer than torch itself, and each job would wait for it."""
    program = """
import sys
import torch
from mdlatent.device import choose_device
assert choose_device("cpu", 1) == "cpu" and torch.get_num_threads() == 1
assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
assert not {"torch._inductor", "torch._dynamo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": str(PACKAGE)})
