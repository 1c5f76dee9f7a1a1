"""A git repository of the fake Hub: commits of files, of which large ones are pointers."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

LFS_BYTES = 10 << 20
"""Files of this size are kept outside of git, and all that are no text."""


@dataclass(frozen=True)
class File:
    """A file in a commit."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        size = len(self.content)
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n"
        )
        return text.encode()

    @property
    def blob_id(self) -> str:
        """Git's id, for a large file that of its pointer."""
        content = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """As a listing has it."""
        entry: dict[str, Any] = {
            "type": "file", "oid": self.blob_id, "size": len(self.content), "path": path
        }  # fmt: skip
        if self.lfs:
            size = len(self.content)
            entry["lfs"] = {"oid": self.sha256, "size": size, "pointerSize": len(self.pointer)}
        return entry


Tree = dict[str, File]


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    tree: Tree


@dataclass
class Repository:
    """A data set's repository."""

    name: str
    private: bool
    gated: str | bool = False
    members: set[str] = field(default_factory=set)
    """Users whose access was granted, besides the owner's."""
    commits: list[Commit] = field(default_factory=list)

    def commit(self, title: str, tree: Tree) -> Commit:
        text = "\n".join([title, *(f"{path} {tree[path].blob_id}" for path in sorted(tree))])
        parent = self.commits[-1].sha if self.commits else ""
        sha = hashlib.sha1(f"{parent}\n{text}".encode()).hexdigest()
        self.commits.append(Commit(sha, title, tree))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.sha == revision), None)

    @property
    def files(self) -> dict[str, bytes]:
        """Content of the files of ``main``."""
        return {path: file.content for path, file in self.commits[-1].tree.items()}


def is_large(sample: bytes) -> bool:
    """Whether the Hub keeps a file outside of git: it is large, or no text."""
    if len(sample) >= LFS_BYTES or b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.end < len(sample)  # the sample may end within a character
    return False
