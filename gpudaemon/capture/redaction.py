"""Replaces what names one specimen, everywhere and always by the same: a keyed hash in the same spelling.

First everything is looked at (`learn_*`), then everything is rewritten (`file`, `text`): an identifier learnt
from one file is replaced in every other, in names and in links too, in each spelling of the same number. A
replacement has the alphabet and the number of digits of what it replaces, so that parsers and widths stay what
they were. The key is drawn anew for each capture and kept nowhere, unless the caller gives one.
"""

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable

from gpudaemon.model.identifiers import LINES, PATTERNS, Form, form_of

__all__ = ["Redactor"]

_NOTHING = frozenset({"", "n/a", "none", "null", "unknown", "unavailable", "not specified", "default string"})
_SEPARATORS = str.maketrans("", "", ":-_ ")
_SHORTEST = 6
"""Digits or letters of an identifier that is replaced beyond the file that holds it: `12` stands everywhere."""
_UNIQUE = 10
"""Hexadecimal digits that are no accident inside a longer run of them."""
_TRIES = 64

_Substitute = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


class Redactor:
    """See the module. key: secret of the hash. counts: how many identifiers of each kind were learnt."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._numbers: dict[int, int] = {}
        self._texts: dict[str, str] = {}
        self._taken: set[int | str] = set()
        self._substitutes: list[_Substitute] = []
        self._words: list[_Substitute] = []
        self.counts: Counter[str] = Counter()

    # Learning

    def learn_file(self, path: str, content: bytes) -> None:
        """Look at a file for what names a specimen, by its place and by what it says."""
        text = _decoded(content)
        if text is None:
            return
        form = form_of(path)
        if form is not None:
            self._learn(text.strip(), form, path.rsplit("/", 1)[-1])
        self.learn_text(text)

    def learn_text(self, text: str) -> None:
        """Look at a text, or at a name."""
        for pattern, form in LINES:
            for match in pattern.finditer(text):
                self._learn(match[1], form, "in a line")
        for kind, pattern in PATTERNS:
            for match in pattern.finditer(text):
                self._learn(match[0], Form.HEX, kind)

    def learn_word(self, word: str, kind: str) -> None:
        """A name that is one only where it stands as a word, and not in sysfs, such as the host's."""
        if word and word.lower() not in ("localhost", "(none)") and word not in self._texts:
            fake = self._texts[word] = self._fake_text(word)
            self.counts[kind] += 1
            self._words.append((re.compile(rf"(?<!\w){re.escape(word)}(?!\w)"), lambda _: fake))

    def _learn(self, value: str, form: Form, kind: str) -> None:
        number = _number(value, form)
        if number is not None:
            if number and not _all_ones(number) and number not in self._numbers:
                self._numbers[number] = self._fake_number(number)
                self.counts[kind] += 1
                self._substitutes += _of_number(number, self._numbers[number])
        elif value.lower() not in _NOTHING and value.strip("0 .:-_") and value not in self._texts:
            self._texts[value] = self._fake_text(value)
            self.counts[kind] += 1
            # Before numbers: one may be a part of it.
            self._substitutes[:0] = _of_text(value, self._texts[value])

    # Rewriting

    def file(self, path: str, content: bytes) -> bytes:
        """Content of the file at `path` without what names a specimen."""
        text = _decoded(content)
        if text is None:
            return self._binary(content)
        form, value = form_of(path), text.strip()
        if form is not None and value:
            before, _, after = text.partition(value)
            return f"{before}{self._whole(value, form)}{after}".encode("utf-8", "surrogateescape")
        return self.text(text).encode("utf-8", "surrogateescape")

    def text(self, text: str) -> str:
        """A text, a name or the target of a link, rewritten."""
        for pattern, replacement in self._substitutes:
            text = pattern.sub(replacement, text)
        return text

    def log(self, text: str) -> str:
        """A text that is no file of the kernel's: words of the host are replaced too."""
        for pattern, replacement in self._words:
            text = pattern.sub(replacement, text)
        return self.text(text)

    def leftovers(self, text: str) -> list[str]:
        """Identifiers that still stand in `text`, in any spelling that is replaced."""
        return [match[0] for pattern, _ in self._substitutes for match in pattern.finditer(text)]

    def _whole(self, value: str, form: Form) -> str:
        """What stands for a file's whole content; short ones are replaced here only."""
        number = _number(value, form)
        if number is None:
            return self._texts.get(value, value)
        fake = self._numbers.get(number, number)
        return f"{fake:0{len(value)}d}" if form is Form.DECIMAL else _spelled(value, f"{fake:x}")

    def _binary(self, content: bytes) -> bytes:
        for number, fake in self._numbers.items():
            if number >> 40 and not number >> 64 and not fake >> 64:
                for order in ("little", "big"):
                    content = content.replace(number.to_bytes(8, order), fake.to_bytes(8, order))
        return content

    # Replacements

    def _hash(self, what: str) -> bytes:
        return hmac.digest(self._key, what.encode("utf-8", "surrogateescape"), hashlib.sha512)

    def _fake_number(self, number: int) -> int:
        """Another number with as many hexadecimal digits; of few digits perhaps one more."""
        digits = len(f"{number:x}")
        fake = number
        for attempt in range(10 * _TRIES):
            digits += attempt % _TRIES == _TRIES - 1
            low, high = 16 ** (digits - 1), 16**digits
            fake = low + int.from_bytes(self._hash(f"{number}/{attempt}"), "big") % (high - low)
            if fake not in self._taken and fake != number:
                break
        self._taken.add(fake)
        return fake

    def _fake_text(self, original: str) -> str:
        """Another text: digits for digits, capitals for capitals, small letters for small letters."""
        fake = original
        for attempt in range(_TRIES):
            stream = self._hash(f"{original}/{attempt}")
            while len(stream) < len(original):
                stream += self._hash(stream.hex())
            fake = "".join(map(_of_its_kind, original, stream))
            if fake not in self._taken and fake != original:
                break
        self._taken.add(fake)
        return fake


def _decoded(content: bytes) -> str | None:
    """As text; None for what is none, such as a table of the firmware."""
    return None if b"\0" in content else content.decode("utf-8", "surrogateescape")


def _number(value: str, form: Form) -> int | None:
    """The number a value spells, None where it is a text."""
    if form is Form.DECIMAL:
        return int(value) if value.isascii() and value.isdigit() and len(value) < 50 else None
    digits = value.translate(_SEPARATORS)
    if digits[:2] in ("0x", "0X"):
        digits = digits[2:]
    elif form is Form.TEXT:
        return None
    return int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]{1,128}", digits) else None


def _all_ones(number: int) -> bool:
    return number in ((1 << 32) - 1, (1 << 48) - 1, (1 << 64) - 1, (1 << 128) - 1)


def _spelled(like: str, digits: str) -> str:
    """`digits` with the case, the zeros in front and the separators of `like`."""
    prefix = like[:2] if like[:2] in ("0x", "0X") else ""
    body = like[len(prefix) :]
    places = len(body.translate(_SEPARATORS))
    left = iter(digits.rjust(places, "0"))
    spelled = prefix + "".join(char if char in ":-_ " else next(left) for char in body) + "".join(left)
    return spelled.upper() if re.search("[A-F]", body) and not re.search("[a-f]", body) else spelled


def _of_number(number: int, fake: int) -> list[_Substitute]:
    """Hexadecimal, in groups or not, whatever zeros in front; and decimal where 64 bits are enough."""
    digits = f"{number:x}"
    made: list[_Substitute] = []
    if len(digits) >= _SHORTEST:
        run = "[:_ -]?".join(digits)
        loose = len(digits) >= _UNIQUE
        pattern = run if loose else rf"(?<![1-9a-fA-F]){run}(?![0-9a-fA-F])"
        made.append((re.compile(pattern, re.IGNORECASE), lambda match: _spelled(match[0], f"{fake:x}")))
    if len(str(number)) >= _SHORTEST and number < 1 << 64:
        made.append((re.compile(rf"(?<!\d){number}(?!\d)"), lambda _: str(fake)))
    return made


def _of_text(original: str, fake: str) -> list[_Substitute]:
    """The text itself, and its bytes in hexadecimal as in an NVMe wwid (drivers/nvme/host/sysfs.c, %*phN)."""
    if len(original) < _SHORTEST:
        return []
    literal = re.escape(original)
    if original.isdigit():
        literal = rf"(?<!\d){literal}(?!\d)"
    encoded = [one.encode("utf-8", "surrogateescape").hex() for one in (original, fake)]
    return [
        (re.compile(literal), lambda _: fake),
        (re.compile(encoded[0], re.IGNORECASE), lambda _: encoded[1]),
    ]


def _of_its_kind(char: str, byte: int) -> str:
    if "0" <= char <= "9":
        return str(byte % 10)
    if "a" <= char <= "z" or "A" <= char <= "Z":
        return chr(ord("a" if char >= "a" else "A") + byte % 26)
    return char
