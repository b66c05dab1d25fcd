"""Time and memory of updates; ``python -m benchmarks.performance``."""
