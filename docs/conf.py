"""The documentation site: `nox -s docs` builds it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # what lies beside this file

import gallery  # noqa: E402
import pages  # noqa: E402

project = "mim-harness"
author = "mim-harness contributors"
version = release = metadata.version("mim-harness")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
exclude_patterns = ["_build", "jupyter_execute"]  # what a build leaves here
html_theme = "furo"
html_title = project
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["generated/copied"]  # reports that the gallery leads to
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = pages.aliases()
python_maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes that a subclass may set", "params_style")]
# docs/notebook.ipynb is run whenever the site is built, in a folder of its own.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds of a cell, on a busy machine too
nb_output_stderr = "remove"  # warnings of other packages
suppress_warnings = ["config.cache"]

pages.write(HERE / "generated")
gallery.write(HERE / "generated", HERE / "generated" / "copied")
