"""Text of a user's own in Markdown: shown as it is, never taken as markup."""

from __future__ import annotations

import re
from html import escape

from boundnas.data.names import escaped

# What begins markup anywhere in a line; an underscore does so at the edge of a word only.
_MARKS = re.compile(r"[\\`*$|~\[\]]|(?<![^\W_])_|_(?![^\W_])")


def markdown(text: object) -> str:
    r"""Text for a line or a table's cell of Markdown.

    Examples:
        >>> print(markdown("a|b <i> $x$ mobilenet_v2"))
        a\|b &lt;i&gt; \$x\$ mobilenet_v2
    """
    return escape(_MARKS.sub(r"\\\g<0>", escaped(text)), quote=False)
