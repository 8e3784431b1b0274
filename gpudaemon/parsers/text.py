"""Names and labels: one line of text, written by firmware or a driver, in any encoding.

Identity files (`unique_id`, `product_name`) and hwmon's `name` and `tempN_label` come this way. They may be
empty, padded with blanks, or not UTF-8 at all.
"""

from gpudaemon.errors import Malformed

__all__ = ["LONGEST", "text", "text_or_empty"]

LONGEST = 128
"""Characters kept of a label value; product names of FRU chips have at most 64."""


def text(content: bytes) -> str:
    """The first line without blanks around it, bad UTF-8 replaced, at most `LONGEST` characters.

    Raises Malformed on content beyond a page, which no sysfs attribute has.
    """
    if len(content) > 4096:
        raise Malformed("oversized")
    line = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    return line.strip(" \t\r\0")[:LONGEST].rstrip()


def text_or_empty(content: bytes | None) -> str:
    """Like `text`, empty where there is no content or it is malformed: for labels, which must not fail."""
    try:
        return text(content or b"")
    except Malformed:
        return ""
