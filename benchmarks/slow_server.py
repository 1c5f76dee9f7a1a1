"""A web server that is far away: one folder, over a line with latency and a bounded rate.

    python benchmarks/slow_server.py FOLDER [--latency-ms 20] [--mb-per-s 100]

It answers GET and HEAD, with and without Range, of ``/NAME/…``, as a web server does and as S3 does
for a bucket NAME: boto3 reads from it too. Each answer starts after the latency; all together
they get the rate. Prints its port.
"""

import argparse
import asyncio
import re
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from urllib.parse import unquote

PIECE = 1 << 17
"""Bytes sent at once."""


class Line:
    """A line with a latency and a rate, shared by all connections."""

    def __init__(self, latency_s: float, bytes_per_s: float) -> None:
        self._latency_s, self._bytes_per_s = latency_s, bytes_per_s
        self._free = 0.0

    async def answer(self) -> None:
        """Wait as long as a request and the start of its answer are under way."""
        await asyncio.sleep(self._latency_s)

    async def send(self, size: int) -> None:
        """Wait until the line has carried so many more bytes."""
        self._free = max(self._free, monotonic()) + size / self._bytes_per_s
        await asyncio.sleep(self._free - monotonic())


async def serve(folder: Path, line: Line) -> None:
    """Serve a folder until the process is ended."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _answer(folder, line, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(
    folder: Path, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer one request; whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, target, _ = head.split("\r\n", 1)[0].split(" ")
    path = folder / unquote(target.partition("?")[0]).lstrip("/")
    await line.answer()
    if not path.is_file():
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return True
    size = path.stat().st_size
    wanted = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
    first = int(wanted[1]) if wanted else 0
    last = min(size - 1, int(wanted[2])) if wanted and wanted[2] else size - 1
    status = HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Length: {last - first + 1}",
        f"Last-Modified: {formatdate(path.stat().st_mtime, usegmt=True)}",
        f'ETag: "{size:x}-{path.stat().st_mtime_ns:x}"',
        "Accept-Ranges: bytes",
        *([f"Content-Range: bytes {first}-{last}/{size}"] if wanted else []),
    ]
    writer.write("\r\n".join([*lines, "\r\n"]).encode())
    if method == "GET":
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left:
                piece = file.read(min(PIECE, left))
                await line.send(len(piece))
                writer.write(piece)
                await writer.drain()
                left -= len(piece)
    await writer.drain()
    return True


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--mb-per-s", type=float, default=100)
    options = parser.parse_args()
    line = Line(options.latency_ms / 1000, options.mb_per_s * 1e6)
    asyncio.run(serve(options.folder, line))


if __name__ == "__main__":
    main()
