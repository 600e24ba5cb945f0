"""How molecules are split by scaffold, for every command alike: what one learned from, no other may be tested on."""

import argparse

__all__ = ["FRACTIONS", "add_fractions"]

FRACTIONS = (0.6, 0.2, 0.2)  # training, validation, test


def add_fractions(parser: argparse.ArgumentParser) -> None:
    """Add --fractions."""
    parser.add_argument("--fractions", type=float, nargs=3, default=FRACTIONS, help="training, validation, test")
