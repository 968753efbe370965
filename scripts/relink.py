"""Documents that are shown elsewhere than where they lie: relative links and pictures become others."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

# What stands before a target in Markdown and in HTML, and the target without its anchor.
_LINK = re.compile(r"""(\]\(|\b(?:src|href)=")([^()"#\s]+)""")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def relink(text: str, document: str, target: Callable[[str], str]) -> str:
    """A document with other links; code between fences, anchors and addresses stay as they are.

    Args:
        text: of the document.
        document: its path from the repository's root.
        target: the new link for the path, from the root, of the file that an old one leads to.
    """

    def replace(link: re.Match[str]) -> str:
        before, path = link.groups()
        if ":" in path:
            return link[0]
        return before + target(posixpath.normpath(posixpath.join(posixpath.dirname(document), path)))

    return "".join(part if part.startswith("```") else _LINK.sub(replace, part) for part in _CODE.split(text))
