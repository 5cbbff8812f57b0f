"""Sphinx configuration: `make docs`.

The build reaches no network. With RESATTN_INTERSPHINX=1 names of torch and Python link to their documentation.
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import timm_resattn  # noqa: E402

project = "timm_resattn"
author = "The timm_resattn developers"
release = version = timm_resattn.__version__
html_theme = "furo"
html_title = f"{project} {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

default_role = "code"
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures show them
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_custom_sections = [("Shape", "notes_style")]
nitpick_ignore_regex = [(r"py:.*", r"(?!timm_resattn).*")]  # names of other packages, unless intersphinx knows them

if os.environ.get("RESATTN_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }


def _flatten_links_to_folders(app, docname: str, source: list[str]) -> None:
    """Generated blocks link to folders of the repository, which a page can't."""

    def flat(match: re.Match[str]) -> str:
        target = (ROOT / "docs" / match[2]).resolve()
        return match[1] if target.is_dir() else match[0]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)\)", flat, source[0])


def setup(app) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", _flatten_links_to_folders)
