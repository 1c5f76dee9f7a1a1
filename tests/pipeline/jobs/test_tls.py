"""TLS by Dask's own settings: real certificates, a real scheduler and worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.config
import pytest

from latentset.datasets.errors import JobError
from latentset.datasets.sources import Source
from latentset.pipeline.jobs import cluster
from latentset.pipeline.jobs.tasks import JobResult
from tests.makers import CLIENT, PYTHONPATH

pytest.importorskip("cryptography")

Run = Callable[..., JobResult]
Content = Callable[[Path], dict[str, bytes]]

TIMEOUT_S = 120


@dataclass(frozen=True)
class Certificates:
    """One certificate for everybody."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def arguments(self) -> list[str]:
        """Options of Dask's commands."""
        return [
            *("--tls-ca-file", str(self.authority)),
            *("--tls-cert", str(self.certificate)),
            *("--tls-key", str(self.key)),
        ]

    @property
    def configuration(self) -> dict[str, Any]:
        """Dask's configuration of a client."""
        return {
            "distributed.comm.tls.ca-file": str(self.authority),
            **{
                f"distributed.comm.tls.{role}.{name}": str(path)
                for role in ("client", "scheduler", "worker")
                for name, path in (("cert", self.certificate), ("key", self.key))
            },
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            f"DASK_{name}".upper().replace(".", "__").replace("-", "_"): value
            for name, value in self.configuration.items()
        }


def make_certificates(folder: Path) -> Certificates:
    """A certificate that signs itself, made by Dask with `cryptography`."""
    import distributed

    library: Any = distributed
    made = library.Security.temporary()
    folder.mkdir()
    (folder / "authority.pem").write_text(made.tls_ca_file)
    (folder / "certificate.pem").write_text(made.tls_scheduler_cert)
    (folder / "key.pem").write_text(made.tls_scheduler_key)
    return Certificates(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


@contextmanager
def dask_command(folder: Path, *arguments: str) -> Iterator[None]:
    with (folder / f"{arguments[0]}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, "--dashboard-address", "127.0.0.1:0"],
            stderr=log,
            env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture(scope="module")
def address(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a scheduler with one worker speaks TLS and nothing else."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    where = ["--protocol", "tls", "--host", "127.0.0.1"]
    with ExitStack() as stack:
        stack.enter_context(
            dask_command(
                folder,
                *("scheduler", "--port", "0", "--scheduler-file", str(file)),
                *(*where, *certificates.arguments),
            )
        )
        end = time.monotonic() + TIMEOUT_S
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < end
            time.sleep(0.05)
        stack.enter_context(
            dask_command(
                folder,
                *("worker", "--scheduler-file", str(file), "--nthreads", "1"),
                *("--local-directory", str(folder), *where, *certificates.arguments),
            )
        )
        yield json.loads(file.read_text())["address"]


def test_a_client_with_certificates(
    run: Run,
    mixed: Source,
    content: Content,
    address: str,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    assert address.startswith("tls://")
    with dask.config.set(certificates.configuration):
        result = run(mixed, tmp_path / "secret", scheduler=address)
    assert result.encoded == 40
    run(mixed, tmp_path / "near")
    assert content(tmp_path / "secret") == content(tmp_path / "near")


def test_certificates_named_by_environment_variables(
    uniform: Source, address: str, certificates: Certificates, tmp_path: Path
) -> None:
    command = ["encode", str(uniform.root), str(tmp_path / "store"), "--codec", "standin"]
    done = subprocess.run(
        [sys.executable, str(CLIENT), *command, "--scheduler", address],
        env={**os.environ, **certificates.environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "32: 32 with latents, 0 failed" in done.stdout


def test_a_client_without_certificates(
    run: Run, uniform: Source, address: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"speaks TLS, .* no certificates .*tls\.ca-file"):
        run(uniform, tmp_path / "store", scheduler=address)


def test_a_client_of_another_authority(
    run: Run, uniform: Source, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 2)
    other = make_certificates(tmp_path / "other")
    with (
        dask.config.set(other.configuration),
        pytest.raises(JobError, match=r"no Dask scheduler answers at tls://.* its certificates"),
    ):
        run(uniform, tmp_path / "store", scheduler=address)


def test_a_client_that_does_not_know_of_tls(
    run: Run, uniform: Source, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 2)
    with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://.*tls://… where"):
        run(uniform, tmp_path / "store", scheduler=address.replace("tls://", "tcp://"))


def test_local_workers_with_encryption_required(
    run: Run, uniform: Source, certificates: Certificates, tmp_path: Path
) -> None:
    required = {**certificates.configuration, "distributed.comm.require-encryption": True}
    with dask.config.set(required):
        result = run(uniform, tmp_path / "store", scheduler=None, workers=1)
    assert result.encoded == 32
