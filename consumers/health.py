"""health: attempts -> commands. An endpoint whose answer disables it is disabled.

That is 410 Gone, or the answer header `disable`, where the profile honours them. The
command holds for the version of the endpoint that the request used (docs/adr/0007).
"""

from __future__ import annotations

from functools import partial
from threading import Event

from engine.core.change import DisableEndpoint
from engine.core.model import AttemptFinished
from engine.core.routing import partition_of
from engine.ports import Output, Record
from engine.runtime.atleastonce import AtLeastOnce
from engine.runtime.context import Context, Ready
from schemas import headers
from schemas.codec import UndecodableError

GROUP = "health"
ACTOR = "health"
BATCH_MAX = 500
COMMIT_EVERY_S = 1.0
PATIENCE_MS = 100


def disable_gone(context: Context, record: Record) -> Output | None:
    """Return the command that an attempt leads to: disable, if its answer says so.

    The command's id is derived from endpoint and version, so a burst of such answers is one command.
    """
    if headers.DISABLES not in record.headers:
        return None
    try:
        attempt = context.codec.decode_as(AttemptFinished, record.value)
    except UndecodableError:
        return None  # the projector puts it on `invalid`
    command = DisableEndpoint(
        command_id=f"gone:{attempt.endpoint_id}:v{attempt.endpoint_version}",
        tenant=attempt.tenant,
        actor=ACTOR,
        requested_at=context.clock.now(),
        endpoint_id=attempt.endpoint_id,
        reason="gone",
        expected_version=attempt.endpoint_version,
    )
    partition = partition_of(attempt.tenant, context.log.partitions("commands"))
    cause = {headers.CAUSE: headers.cause_for(record)}
    return Output("commands", partition, attempt.tenant.encode(), context.codec.encode(command), cause)


class Health:
    """Reads attempts, asks for what follows; everything it asks for may be asked twice."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._producer = context.log.producer()
        self._inputs = AtLeastOnce(context.log, GROUP, ("attempts",), patience_ms=PATIENCE_MS)
        self._committed = 0.0

    def step(self, timeout: float) -> None:
        """Handle what is there; commit when all that was asked is acknowledged."""
        records = self._inputs.poll(timeout, BATCH_MAX)
        for command in self._inputs.each(records, partial(disable_gone, self._context)):
            if command is not None:
                self._producer.send(command, lambda offset: None)
        self._producer.poll()
        now = self._context.clock.monotonic()
        if now - self._committed >= COMMIT_EVERY_S and self._producer.flush(0):
            self._committed = now
            self._inputs.commit(wait=False)

    def close(self) -> None:
        """Finish and commit what was taken in, leave."""
        if self._producer.flush(10) and self._inputs.next:
            self._inputs.commit(wait=True)
        self._inputs.consumer.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    health = Health(context)
    ready()
    while not stop.is_set():
        health.step(0.1)
    health.close()
