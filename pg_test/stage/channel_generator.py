"""Texts that might stand after LISTEN, many of them nearly right, from a seed."""

import random
from typing import Callable

# Letters beyond ASCII by encoding; an SQL_ASCII database takes any byte.
LETTERS = {
    "UTF8": [char.encode() for char in "éÉßöøİıΣς日本語ﬁ😀🐘"],
    "LATIN1": [char.encode("latin-1") for char in "éÉßöøÿÀ×÷µ"],
    "SQL_ASCII": [bytes([byte]) for byte in range(128, 256)],
}
ASCII = [bytes([byte]) for byte in range(1, 128)]
START = [bytes([byte]) for byte in b"abcxyzABCXYZ_"]
INSIDE = START + [bytes([byte]) for byte in b"0189$"]
SPACE = [b" ", b"  ", b"\t", b"\n", b"\r", b"\f", b"\v"]
COMMENT = [b"-- c\n", b"--\r", b"/**/", b"/* a /* b */ c */", b"/*/**/*/", b"/* \" */", b"-- '\n", b"/* -- */", b"/***/"]
UNFINISHED = [b"--", b"-- c", b"/*", b"/* /* */", b"*/", b"-", b"/"]
ESCAPE = [b"!", b"#", b"\\", b"z", b"_", b"~", b"$", b"\x01", b"\x7f"]
NO_ESCAPE = [b"a", b"0", b"+", b" ", b"'", b'"', b"", b"!!", b"\n"]
JUNK = [b"x", b"X", b"1", b"$", b"$1", b".", b"-", b"+", b",", b"*", b"(", b")", b"'", b"''", b'"', b'""', b"U&", b'U&"',
        b'u&"', b"U&'", b"UESCAPE", b"'!'", b"\\", b"\\0061", b"!0061", b"E'", b"$$", b"$a$", b"/*", b"*/", b"--", b" ",
        b"\n", b"\x01", b"\x1f", b"\x7f", b"select", b"user", b"[", b"]", b":", b"::", b"=", b"@", b"\xc2\xa0"]


class Generator:
    def __init__(self, seed: int, encoding: str, keywords: list[bytes]):
        self.random = random.Random(f"{seed} {encoding}")
        self.letters, self.keywords, self.encoding = LETTERS[encoding], keywords, encoding

    def texts(self, count: int) -> list[bytes]:
        return [self.text() for _ in range(count)]

    def text(self) -> bytes:
        makers: list[Callable[[], bytes]] = [
            self.plain, self.delimited, self.unicode, self.unicode, self.keyword, self.mutated, self.mutated, self.junk]
        return self.random.choice(makers)()

    def identifier(self) -> bytes:
        return self.random.choice([self.plain, self.delimited, self.unicode, self.keyword])()

    # -- kinds -----------------------------------------------------------------------------------------------

    def plain(self) -> bytes:
        name = self.filled(lambda: self.random.choice(INSIDE + self.letters))
        return self.surrounded(self.random.choice(START + self.letters) + name)

    def delimited(self) -> bytes:
        name = self.filled(lambda: self.random.choice(self.random.choice([ASCII, INSIDE, self.letters, SPACE + [b'"']])))
        return self.surrounded(quoted(name))

    def unicode(self) -> bytes:
        escape = self.random.choice(ESCAPE) if self.chance(0.6) else b"\\"
        body = self.filled(lambda: self.piece(escape))
        if self.chance(0.1):
            body += self.random.choice([escape, escape + b"00", escape + b"d83d", escape + b"0000", escape + b"+110000"])
        text = self.random.choice([b"U&", b"u&"]) + quoted(body)
        if escape != b"\\" or self.chance(0.2):
            said = self.random.choice(NO_ESCAPE) if self.chance(0.05) else escape
            text += self.blank() + self.cased(b"uescape") + self.blank() + self.literal(said)
        return self.surrounded(text)

    def keyword(self) -> bytes:
        word = self.cased(self.random.choice(self.keywords))
        return self.surrounded(quoted(word) if self.chance(0.2) else word)

    def mutated(self) -> bytes:
        """An identifier with one piece put in, taken out or replaced."""
        units = self.units(self.identifier())
        place = self.random.randrange(len(units) + 1)
        piece = [self.random.choice(JUNK + self.letters)] if self.chance(0.6) else []
        units[place:place + self.random.randrange(2)] = piece
        return self.valid(b"".join(units))

    def junk(self) -> bytes:
        return self.valid(b"".join(self.random.choices(JUNK + self.letters, k=self.random.randrange(8))))

    # -- parts -----------------------------------------------------------------------------------------------

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def filled(self, piece: Callable[[], bytes]) -> bytes:
        """Pieces up to a length that is often about the limit."""
        length = self.random.choice([self.random.randrange(12), self.random.randrange(56, 72), self.random.randrange(200)])
        filler = self.random.choice([b"a", b"", b"", b"A"]) * self.random.randrange(60)
        name = filler[:length]
        while len(name) < length:
            name += piece()
        return name

    def piece(self, escape: bytes) -> bytes:
        """A part of a U&"…" name."""
        def escaped(code: int) -> bytes:
            form = b"%04x" if code < 0x10000 and self.chance(0.7) else b"+%06X"
            return escape + form % code
        kind = self.random.randrange(12)
        if kind == 0:
            return escape * 2
        if kind == 1 and self.encoding == "UTF8":
            code = self.random.choice([0x1F600, 0x10FFFF, 0x10000]) - 0x10000
            return escaped(0xD800 + (code >> 10)) + escaped(0xDC00 + (code & 0x3FF))
        if kind == 2:
            most = {"UTF8": 0xD7FF, "LATIN1": 0xFF, "SQL_ASCII": 0x7F}[self.encoding]
            return escaped(self.random.randrange(1, most + 1))
        if kind <= 4:
            return escaped(self.random.randrange(1, 128))
        return self.random.choice(self.letters if kind <= 6 else INSIDE + [b" ", b'"', b"'"])

    def literal(self, value: bytes) -> bytes:
        """A string constant in one of its spellings."""
        plain = b"'" + value.replace(b"'", b"''") + b"'"
        spellings = [plain, plain, plain, plain + b" \n -- c\n ''", b"''\n" + plain, b"$$" + value + b"$$",
                     b"$t$" + value + b"$t$", b"e'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"]
        if len(value) == 1:
            spellings += [b"E'\\x%02x'" % ord(value), b"E'\\%03o'" % ord(value), b"E'\\u%04x'" % ord(value)]
        return self.random.choice(spellings)

    def blank(self) -> bytes:
        return b"".join(self.random.choices([b"", b" "] + SPACE[:-1] + COMMENT, k=self.random.randrange(3)))

    def surrounded(self, text: bytes) -> bytes:
        if self.chance(0.5):
            return text
        blanks = SPACE + COMMENT + (UNFINISHED if self.chance(0.1) else [])
        before, after = (b"".join(self.random.choices(blanks, k=self.random.randrange(3))) for _ in range(2))
        return before + text + after

    def cased(self, word: bytes) -> bytes:
        return self.random.choice([word, word, word.upper(), word.title(), word.swapcase()])

    def units(self, text: bytes) -> list[bytes]:
        """Characters of the encoding."""
        if self.encoding == "UTF8":
            return [char.encode() for char in text.decode()]
        return [bytes([byte]) for byte in text]

    def valid(self, text: bytes) -> bytes:
        """Without what would be no text of the encoding."""
        return text.decode(errors="ignore").encode() if self.encoding == "UTF8" else text


def quoted(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'
