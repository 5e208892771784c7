"""One Node process with all of its receivers, and the Python ones beside it, for a test session."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pipeline.world import SECRET
from tests.receivers import python_receivers as python

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "receivers"
OTHER_SECRET = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVy"
_OFFLINE = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH")


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """The folder `node_modules` of what package.json names; installed once, and kept."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not both there")
    wanted = (HERE / "package.json").read_bytes()
    folder = CACHE / hashlib.sha256(wanted).hexdigest()[:16]
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=CACHE) as part:
            _install(Path(part) / "packages", wanted)
            (Path(part) / "packages").rename(folder)
    return folder / "node_modules"


def _install(folder: Path, wanted: bytes) -> None:
    folder.mkdir()
    (folder / "package.json").write_bytes(wanted)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        if any(code in done.stderr for code in _OFFLINE):
            pytest.skip("npm cannot reach its registry")
        pytest.fail(f"npm install: {done.stderr[-2_000:]}")


@pytest.fixture(scope="session")
def secrets() -> tuple[str, str]:
    """The secret of path /0, which is the endpoints', and that of /1, which is another."""
    return SECRET, OTHER_SECRET


@pytest.fixture(scope="session")
def node_receivers(node_packages: Path, secrets: tuple[str, str]) -> Iterator[Mapping[str, int]]:
    """Ports of the receivers in Node, by name."""
    environment = {**os.environ, "NODE_PATH": str(node_packages)}
    command = ["node", str(HERE / "receivers.js"), *secrets]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="session")
def python_receivers(secrets: tuple[str, str]) -> Iterator[Mapping[str, int]]:
    """Ports of the receivers in Python, by name."""
    with ExitStack() as stack:
        yield {
            "meetingbaas-flask": stack.enter_context(python.serving_flask(python.meetingbaas_flask(secrets))),
            "meetingbaas-fastapi": stack.enter_context(
                python.serving_fastapi(python.meetingbaas_fastapi(secrets))
            ),
            "standard-fastapi": stack.enter_context(python.serving_fastapi(python.standard_fastapi(secrets))),
        }


@pytest.fixture(scope="session")
def receivers(node_receivers: Mapping[str, int], python_receivers: Mapping[str, int]) -> Mapping[str, int]:
    """Ports of all receivers; a name begins with its profile's."""
    return {**node_receivers, **python_receivers}
