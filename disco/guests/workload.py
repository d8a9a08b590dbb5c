"""The demonstration: unpack an archive, hash its files, sort the words of all at once, count some.

Data follow from a seed; the host works out beforehand every line that the guest has to print. The
guest does it with gunzip, tar, sha256sum, tr, sort, uniq and awk, so a wrong load, carry or page
shows as a wrong line.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from disco.guests import deflate

_FILE_COUNT = 4
_LINES_PER_FILE = 300
_WORDS_PER_LINE = 10
_VOCABULARY_COUNT = 256
_TOP_COUNT = 5
_MARK = "workload:"
_ARCHIVE = "disco/workload.tar.gz"

_SCRIPT = f"""\
cd /tmp
gunzip -c /{_ARCHIVE} | tar -x
sha256sum text/* | sed 's/^/{_MARK} sha256 /'
for file in text/*; do
    tr ' ' '\\n' < $file | sort > $file.sorted &
done
wait
md5sum text/*.sorted | sed 's/^/{_MARK} sorted /'
uniq -c text/0.sorted | sort -k1,1nr -k2,2 | head -n {_TOP_COUNT} |
    awk '{{ print "{_MARK} word", $2, $1 }}'
echo "{_MARK} words $(cat text/*.sorted | wc -l)"
"""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Something for a guest to do.

    Attributes:
        files: what to lay into the guest's root, by path without a leading slash.
        command: the shell script to run.
        expected: the lines that it has to print, in this order.
    """

    files: dict[str, bytes]
    command: str
    expected: list[str]

    def missing(self, console: bytes) -> list[str]:
        """The expected lines that a guest's console does not show."""
        shown = console.decode("ascii", "replace").replace("\r", "").split("\n")
        return [line for line in self.expected if line not in shown]


def make(seed: int) -> Workload:
    """The workload of one VM; another seed gives other data."""
    texts = _texts(seed)
    return Workload(
        files={_ARCHIVE: deflate.gzip(_tar(texts))},
        command=_SCRIPT,
        expected=_expected(texts),
    )


def _texts(seed: int) -> dict[str, bytes]:
    """Files of pseudo-random words, the first ones of the vocabulary more often than the last."""
    word_count = _FILE_COUNT * _LINES_PER_FILE * _WORDS_PER_LINE
    letters = _random(f"{seed} vocabulary", _VOCABULARY_COUNT * 9)
    vocabulary = [_word(letters[i : i + 9]) for i in range(0, len(letters), 9)]
    draws = _random(f"{seed} text", word_count * 2)
    words = [
        vocabulary[min(pair) % _VOCABULARY_COUNT] for pair in zip(*[iter(draws)] * 2, strict=True)
    ]
    lines = [b" ".join(part) + b"\n" for part in _chunks(words, _WORDS_PER_LINE)]
    parts = _chunks(lines, _LINES_PER_FILE)
    return {f"text/{index}": b"".join(part) for index, part in enumerate(parts)}


def _random(text: str, size: int) -> bytes:
    """Bytes that follow from `text` on every host, unlike those of Python's own generator."""
    return hashlib.shake_256(text.encode()).digest(size)


def _word(entropy: bytes) -> bytes:
    """A word of two to eight letters; the first byte gives its length."""
    return bytes(ord("a") + byte % 26 for byte in entropy[1 : 3 + entropy[0] % 7])


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _expected(texts: dict[str, bytes]) -> list[str]:
    """What the guest's tools say, worked out with Python's."""
    words = {path: sorted(text.split()) for path, text in texts.items()}
    top = sorted(Counter(words["text/0"]).items(), key=lambda row: (-row[1], row[0]))[:_TOP_COUNT]
    return [
        *(f"{_MARK} sha256 {hashlib.sha256(t).hexdigest()}  {path}" for path, t in texts.items()),
        *(f"{_MARK} sorted {_md5_of_lines(rows)}  {path}.sorted" for path, rows in words.items()),
        *(f"{_MARK} word {word.decode()} {count}" for word, count in top),
        f"{_MARK} words {sum(map(len, words.values()))}",
    ]


def _md5_of_lines(lines: Iterable[bytes]) -> str:
    return hashlib.md5(b"".join(line + b"\n" for line in lines)).hexdigest()


def _chunks(items: list[bytes], size: int) -> Iterable[list[bytes]]:
    return (items[i : i + size] for i in range(0, len(items), size))
