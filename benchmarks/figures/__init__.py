"""Figures and tables of the paper's experiments from measured results; ``python -m benchmarks.figures``."""
