"""Conformers of small molecules: internal coordinates, learned models of them, generators."""
