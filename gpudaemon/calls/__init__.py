"""Calls into a driver or a vendor's library, each kind in a process of its own.

A kind is one module of this folder, named as in `gpudaemon.model.call`, with a function `caller`. Its process
is a reader whose engine makes calls instead of reading files: lanes, power state, deadlines, quarantine and
records are the reader's (`gpudaemon.reader.lanes`). It decodes nothing: an answer is bytes, and what they mean
is said where the question was thought of.

A call may hang or end its process. Then the server ends what is left of it and starts another one; see
`gpudaemon.pipeline.calls`.
"""

from typing import Protocol

__all__ = ["Caller", "Question"]


class Question(Protocol):
    """Something that can be asked again and again; the counterpart of an open file."""

    def ask(self) -> bytes:
        """Make the call. Raises OSError, whose errno counts as that of a read; EACCES is a want of rights."""

    def close(self) -> None:
        """Give back what is held for it; must not wait for a driver."""


class Caller(Protocol):
    """One kind of calls.

    about: what it uses, for people: the library and its version. let_go: what it holds open may keep a device
    from falling asleep, so that of a device at rest nothing stays open.
    """

    about: str
    let_go: bool

    def open(self, device: str, question: str) -> Question:
        """Prepare a question about the device with this id. Raises OSError, whose errno is that of an open."""
