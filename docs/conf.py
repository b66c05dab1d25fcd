"""Settings of the documentation: ``python -m sphinx -W -b html docs docs/_build``."""

from importlib.metadata import version as installed_version

project = "sb3_rmdp"
author = "the sb3_rmdp developers"
copyright = f"2026, {author}"
release = installed_version("sb3_rmdp")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]

# Formulas between dollars; links to headings of the same page and of others
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Types stand in the signatures; the descriptions need not repeat them
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"sb3_rmdp {release}"
