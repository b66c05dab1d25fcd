"""Measurements; results are in the folder ``results``."""
