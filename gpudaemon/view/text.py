"""What every view does to a text before a person sees it."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """`text` with control characters escaped: names come from devices and may be anything."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
