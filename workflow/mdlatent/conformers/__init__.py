"""Conformers of molecules: reference sets, generators, and how well the one meets the other."""
