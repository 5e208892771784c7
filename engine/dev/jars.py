"""Kafka's jars: pinned in kafka.lock, downloaded by Maven coordinates, checked, cached."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver
from requests import RequestException

LOCK = Path(__file__).with_name("kafka.lock")
_BROKER = "org.apache.kafka:kafka_2.13"
_CLIENTS = "org.apache.kafka:kafka-clients"  # named, or an older one wins the resolution
_LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl"  # binds the slf4j 1.7 that Kafka uses
_LOG_CORE = "org.apache.logging.log4j:log4j-core"
_DOWNLOADS = 8


class JarsError(RuntimeError):
    """The jars cannot be had; the message names them and the ways out."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of kafka.lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """`group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """Its name in the cache folder, the same as in a Maven repository."""
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str) -> list[Jar]:
    """Lines `group:artifact:version sha256`; `#` starts a comment."""
    lines = (re.split(r"[:\s]", line.split("#")[0].strip()) for line in text.splitlines())
    return [Jar(*fields) for fields in lines if fields != [""]]


def kafka_version(jars: Iterable[Jar]) -> str:
    """The broker's version."""
    return next(jar.version for jar in jars if f"{jar.group}:{jar.artifact}" == _BROKER)


def cache_folder(version: str) -> Path:
    """Where the jars of a Kafka version are kept for this user."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hooklog" / f"kafka-{version}"


def kafka_jars(lock: Path = LOCK, folder: Path | None = None) -> list[Path]:
    """Paths of all pinned jars, each verified now, missing ones downloaded; JarsError otherwise."""
    jars = parse_lock(lock.read_text())
    folder = folder or cache_folder(kafka_version(jars))
    folder.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in jars if not _verified(folder / jar.file_name, jar)]
    if missing:
        print(f"downloading {len(missing)} of Kafka's jars into {folder}", file=sys.stderr)
        _download(missing, folder)
    return [folder / jar.file_name for jar in jars]


def _verified(path: Path, jar: Jar) -> bool:
    """False if there is no such file; one with the wrong bytes is deleted and named."""
    if not path.exists():
        return False
    if _sha256(path) == jar.sha256:
        return True
    path.unlink(missing_ok=True)
    print(f"{path} has the wrong SHA-256: deleted, will be downloaded again", file=sys.stderr)
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(jars: list[Jar], folder: Path) -> None:
    """Download beside the cache, verify, then rename into it: what is there is always whole."""
    with (
        tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part,
        ThreadPoolExecutor(_DOWNLOADS) as pool,
    ):
        context = _maven(Path(part), local=[_maven_folder()])
        failed = list(filter(None, pool.map(lambda jar: _fetch(context, jar, folder), jars)))
    if failed:
        raise JarsError(_ways_out(failed, folder))


def _fetch(context: MavenContext, jar: Jar, folder: Path) -> str | None:
    """What went wrong, or None when the jar is in the folder."""
    try:
        found = context.create_dependency(jar.coordinates).artifact.resolve()
    except (RequestException, OSError, RuntimeError) as error:
        return f"{jar.coordinates}: {error}"
    if _sha256(found) != jar.sha256:
        return f"{jar.coordinates}: what was downloaded has the wrong SHA-256; it was thrown away"
    target = context.repo_cache / f"{jar.sha256}.jar"
    shutil.copyfile(found, target)
    target.replace(folder / jar.file_name)
    return None


def _maven(cache: Path, local: list[Path]) -> MavenContext:
    return MavenContext(repo_cache=cache, resolver=PythonResolver(), local_repos=local, timeout=30)


def _maven_folder() -> Path:
    """The user's own Maven repository: jars that are there are not downloaded again."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def _ways_out(failed: list[str], folder: Path) -> str:
    return "\n".join(
        [
            f"cannot get {len(failed)} of Kafka's jars:",
            *(f"  {line}" for line in failed),
            "Ways out: let this machine reach a Maven repository (HTTPS_PROXY is honoured), and start again;",
            f"or put the jars by hand into {folder}",
            f"or into your Maven repository, {_maven_folder()};",
            "or run a broker of your own and name it in HOOKLOG_KAFKA.",
        ]
    )


def resolve(version: str, log4j: str) -> list[Jar]:
    """All a broker needs at run time, by full resolution from the registry."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_DOWNLOADS) as pool:
        context = _maven(Path(folder), local=[])
        pins = (
            f"{_BROKER}:{version}",
            f"{_CLIENTS}:{version}",
            f"{_LOGGING}:{log4j}",
            f"{_LOG_CORE}:{log4j}",
        )
        inputs, transitive = context.resolver.resolve([context.create_dependency(pin) for pin in pins])
        needed = [d.artifact for d in (*inputs, *transitive) if d.scope in (None, "compile", "runtime")]
        sums = pool.map(lambda artifact: _sha256(artifact.resolve()), needed)
        return [Jar(a.groupId, a.artifactId, a.version, sha) for a, sha in zip(needed, sums, strict=True)]


def write_lock(jars: Iterable[Jar], lock: Path = LOCK) -> None:
    """Replace the lock, sorted."""
    lines = sorted(f"{jar.coordinates} {jar.sha256}" for jar in jars)
    head = "# Jars of the embedded broker; made by `python -m engine.dev.jars KAFKA_VERSION LOG4J_VERSION`"
    lock.write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m engine.dev.jars KAFKA_VERSION LOG4J_VERSION, such as 4.3.1 2.25.3")
    write_lock(resolve(sys.argv[1], sys.argv[2]))
    print(f"{LOCK.name}: {len(parse_lock(LOCK.read_text()))} jars")
