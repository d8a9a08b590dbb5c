"""A slow and simple reader of "newc" archives: the second opinion on what Disco writes."""

from __future__ import annotations

_FIELDS = (
    "ino", "mode", "uid", "gid", "nlink", "mtime", "filesize",
    "devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check",
)  # fmt: skip

Member = tuple[str, dict[str, int], bytes]


def read(data: bytes) -> list[list[Member]]:
    """The archives in `data`, each a list of members."""
    archives: list[list[Member]] = []
    members: list[Member] = []
    at = 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        assert at % 4 == 0, "a member begins on a multiple of 4"
        assert data[at : at + 6] == b"070701"
        fields = {
            name: int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i, name in enumerate(_FIELDS)
        }
        name_at = at + 110
        name = data[name_at : name_at + fields["namesize"]]
        assert name[-1] == 0
        content_at = -(-(name_at + len(name)) // 4) * 4
        content = data[content_at : content_at + fields["filesize"]]
        assert len(content) == fields["filesize"]
        at = -(-(content_at + len(content)) // 4) * 4
        if name == b"TRAILER!!!\0":
            archives.append(members)
            members = []
        else:
            members.append((name[:-1].decode(), fields, content))
    assert not members, "the last archive has an end"
    return archives
