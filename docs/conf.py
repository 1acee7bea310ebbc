"""The site of the docs: `make docs`. Nothing is fetched while it is built, and nothing by the pages it makes."""

from __future__ import annotations

import os
from importlib.metadata import version as installed

project = "tokentape"
author = "The tokentape contributors"
copyright = author
release = version = installed("tokentape")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["Thumbs.db"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = "tokentape"
html_show_sphinx = False
html_copy_source = False
html_static_path: list[str] = []
# Links to files of the repository lead out of the site; where it lies is not known when the docs are built offline.
REPOSITORY = os.environ.get("TOKENTAPE_REPOSITORY", "")
