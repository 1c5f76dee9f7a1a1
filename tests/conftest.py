"""What tests of every part share: real images, a real S3 server, a real web server."""

import functools
import http.server
import io
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.makers.hub import TOKEN, FakeHub, serve_hub

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images (trashnet, kodak, imagenet-sample); skips where there is none.

    ``LATENTSET_TEST_DATA`` names it; without, ``../shared/data`` beside the repository is tried.
    """
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("LATENTSET_TEST_DATA", default))
    if not (folder / "kodak").is_dir():
        pytest.skip(f"no test images at {folder}: set LATENTSET_TEST_DATA to their folder")
    return folder


@pytest.fixture
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and the boxes of usage errors are not wrapped, however long the paths in them are."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A bucket of an S3 server on loopback; credentials and endpoint are in the environment."""
    server_of: Any = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    boto3: Any = pytest.importorskip("boto3")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="latents")
        yield "s3://latents"
    server.stop()


@pytest.fixture
def s3(s3_server: str) -> str:
    """A prefix in the bucket that nobody has used."""
    return f"{s3_server}/{uuid.uuid4().hex}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hugging Face Hub on loopback, for this process and those that it starts.

    Its owner's token is in the environment.
    """
    constants: Any = pytest.importorskip("huggingface_hub.constants")
    with serve_hub() as served:
        home = tmp_path / "hf-home"
        for name, value in {
            "HF_ENDPOINT": served.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "LATENTSET_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        # Read when huggingface_hub was imported.
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield served


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own web server, taught to send parts of files as nginx and others do."""

    parts = True

    def send_head(self) -> Any:
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not (self.parts and wanted and path.is_file()):
            return super().send_head()
        size = path.stat().st_size
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else size - int(last)
        end = min(int(last), size - 1) if first and last else size - 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        return io.BytesIO(path.read_bytes()[start : end + 1])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _WholeFiles(_Handler):
    """The same as it comes: it ignores Range."""

    parts = False


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serve a folder over HTTP and give the address; ``parts=False`` ignores Range requests.

    What is read from there is cached in ``tmp_path / "cache"``.
    """
    monkeypatch.setenv("LATENTSET_CACHE", str(tmp_path / "cache"))
    servers = []

    def start(folder: Path, *, parts: bool = True) -> str:
        handler = functools.partial(_Handler if parts else _WholeFiles, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
