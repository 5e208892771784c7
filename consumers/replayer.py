"""replayer: commands -> deliveries, routings, changes, directory. Makes deliveries again, and test sends.

A resend or a test is one delivery, named on `routings` after it is written, and
its command is done by that. A replay's command is done by its first snapshot on
`directory`; from then on the snapshot, not the commit, answers for it, so that a
long replay holds no offset (docs/adr/0002 and engine.runtime.replaying.running).
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from threading import Event
from typing import NamedTuple

from engine.core.change import REMEMBERED_US, Refusal, RejectionCode
from engine.core.model import DeliveryScheduled
from engine.core.recent import Recent
from engine.core.replay import (
    CancelReplay,
    Replay,
    ReplayCommand,
    Resend,
    Resent,
    SendTest,
    StartReplay,
    begun,
    cancel,
    reject,
    started,
)
from engine.ports import Output, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Awaited, Configuration, View
from engine.runtime.context import Context, Ready
from engine.runtime.held import HeldPartitions
from engine.runtime.owned import Input, Owned
from engine.runtime.processor import leased, settle
from engine.runtime.progress import Flow
from engine.runtime.replaying.candidates import Found, Tools, outputs_end, outputs_of
from engine.runtime.replaying.originals import GONE, Originals
from engine.runtime.replaying.readback import ReadBacks
from engine.runtime.replaying.remade import By, Remake, batch_of, resent_of
from engine.runtime.replaying.resuming import Chain, Outputs, is_done, recover, snapshots_of, tombstone_of
from engine.runtime.replaying.running import Running, nobody, nothing, snapshot_output, too_many
from engine.runtime.replaying.surveying import frozen_ends
from engine.runtime.routing.acceptance import BODY_MAX
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "replayer"
POLL_MAX = 20
POLL_S = 0.02
BUSY_POLL_S = 0.001
STEP_S = 0.02
"""About how long the replays may take before commands are looked at again."""
RUNNING_MAX = 4
"""Replays of a tenant that this process advances at the same time; its others wait their turn."""
SEEN_MAX = 50_000
KEPT_US = 30 * 86_400_000_000
"""How long a replay is shown after its end."""
_LOG = telemetry.logger(GROUP)


class Received(NamedTuple):
    """A command's record, and its input, which is done once all that follows is written."""

    taken: Input
    record: Record


class Replayer:
    """The replayer's state: replays under way, and command ids seen."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._partitions = context.log.partitions("commands")
        self._chains: list[Chain] = []
        self._early: list[tuple[CancelReplay, Received, Outputs]] = []
        """Cancellations of what is just beginning, or being taken up."""
        self._seen: dict[TopicPartition, Recent[bool]] = {}
        self._held = HeldPartitions(GROUP)
        """Replays of a partition that waits go on."""
        self._configuration = Configuration(context.codec, Keyring(context.vault))
        self.view = View(context.log, CONFIGURATION_TOPICS, self._configuration.fold)
        self.replays: dict[str, Running] = {}
        remake = Remake(context, self._configuration, self.view)
        self._originals = Originals(context.log, context.codec)
        self.processor = leased(context, self._flow())
        self._read_backs = ReadBacks(context, self.processor.progress.reader)
        self._awaited = Awaited(self.view, context.log, self.processor.progress.reader, context.clock)
        self._tools = Tools(context, self.processor, remake, self._originals)

    def _flow(self) -> Flow:
        return Flow(
            GROUP,
            ("commands",),
            lambda _, partition: (*outputs_of(partition, self._partitions), ("directory", partition)),
            recover=partial(recover, self._context.codec),
            is_done=is_done,
            owning=self._owning,
            disowned=self._disowned,
        )

    # -- rebalances --------------------------------------------------------------------

    def _owning(self, owned: Owned) -> None:
        """Remember the commands of the last day; take up the partition's replays, forget the oldest."""
        now = self._context.clock.now()
        self._remember(owned, now - REMEMBERED_US)
        for record in snapshots_of(self.processor.progress.reader, owned.at[1]):
            replay = self._context.codec.decode_as(Replay, record.value)
            if replay.status == "running":
                self._read_backs.take_up(replay)
            elif replay.ended_at < now - KEPT_US:
                self.processor.send(tombstone_of(record), nothing)

    def _remember(self, owned: Owned, since: int) -> None:
        reader = self.processor.progress.reader
        seen = self._seen[owned.at] = Recent[bool](REMEMBERED_US, SEEN_MAX)
        for record in reader.read(reader.since([owned.at], since)):
            try:
                command = self._command(record) if record.offset < owned.next else None
            except UnknownSchemaError as error:  # we cannot know which ids a newer one has seen
                self._held.add(owned.at, f"offset {record.offset}: {error}")
                break
            if command is not None:
                seen.put(command.command_id.encode(), True, record.timestamp)

    def _disowned(self, owned: Owned) -> None:
        self._seen.pop(owned.at, None)
        self._held.discard(owned.at)
        self._read_backs.forget(owned.at[1])
        for replay_id, running in list(self.replays.items()):
            if running.replay.partition == owned.at[1]:
                running.close()
                del self.replays[replay_id]

    # -- commands ----------------------------------------------------------------------

    def _command(self, record: Record) -> ReplayCommand | None:
        """Decode a command of ours; None for control's, and for what control puts on `invalid`."""
        try:
            command = self._context.codec.decode(record.value)
        except UndecodableError:
            return None
        return command if isinstance(command, ReplayCommand) else None

    def _take_in(self, taken: Input, record: Record) -> None:
        """See to one command, unless its partition waits: then it stays open, and the commit before it."""
        at = taken.owner.at
        if at not in self._held:
            try:
                self.take(taken, record)
            except UnknownSchemaError as error:
                self._held.add(at, f"offset {record.offset}: {error}")
        if at in self._held:
            self.processor.consumer.pause(at)

    def take(self, taken: Input, record: Record) -> None:
        """See to one command; UnknownSchemaError if a newer hooklog wrote it."""
        command = self._command(record)
        if command is None:
            settle(taken)
            return
        seen, key = self._seen[taken.owner.at], command.command_id.encode()
        is_repeated = key in seen
        seen.put(key, True, record.timestamp)
        if taken.done:
            return
        if is_repeated:
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            settle(taken)
            return
        self._awaited.wait(record, self.view.advance)
        found = taken.found if isinstance(taken.found, Outputs) else Outputs()
        received = Received(taken, record)
        match command:
            case Resend():
                self._resend(command, received, found)
            case SendTest():
                self._send_test(command, received, found)
            case StartReplay():
                self._start(command, received, found)
            case CancelReplay():
                self._cancel(command, received, found)

    def _resend(self, command: Resend, received: Received, found: Outputs) -> None:
        source = command.source_partition, command.source_offset
        endpoint = self._tools.remake.endpoint(command.endpoint_id, command.tenant)
        if found.written is not None:
            self._made(command, received, None, found.written)
        elif endpoint is None or not endpoint.enabled:
            self._reject(command, received, nobody(command.endpoint_id))
        elif (original := self._originals.find(command)) is None:
            self._reject(command, received, GONE)
        else:
            by = By(command.command_id, "resend", command.delivery_id)
            self._written(command, received, self._tools.remake.of_original(original, source, endpoint, by))

    def _send_test(self, command: SendTest, received: Received, found: Outputs) -> None:
        endpoint = self._tools.remake.endpoint(command.endpoint_id, command.tenant)
        if found.written is not None:
            self._made(command, received, None, found.written)
        elif endpoint is None:
            missing = f"endpoint {command.endpoint_id!r} does not exist"
            self._reject(command, received, missing, "not_found")
        else:
            record = received.record
            source = record.partition, record.offset
            made = self._tools.remake.of_test(command, (record.timestamp, source), endpoint)
            self._written(command, received, made)

    def _written(self, command: Resend | SendTest, received: Received, delivery: DeliveryScheduled) -> None:
        if len(delivery.body) > BODY_MAX:
            self._reject(command, received, f"the body would be larger than {BODY_MAX} bytes")
        else:
            output = self._tools.remake.output(delivery, headers.cause_for(received.record))
            self._made(command, received, output, resent_of(delivery))

    def _made(
        self, command: Resend | SendTest, received: Received, delivery: Output | None, resent: Resent
    ) -> None:
        """Write the delivery unless it is there already, then name it."""
        taken, record = received
        named = batch_of([resent], command, self._context.clock.now())
        outputs = [] if delivery is None else [delivery]
        outputs.append(self._output("routings", None, named, record))
        self._chains.append(Chain(taken, deque(outputs)))

    def _start(self, command: StartReplay, received: Received, found: Outputs) -> None:
        """Freeze the end in the fact, then write the first snapshot."""
        taken, record = received
        if found.started is None and (refusal := self._refusal(command)):
            self._reject(command, received, refusal.reason, refusal.code)
            return
        fact, outputs = found.started, deque[Output]()
        if fact is None:
            now, reader = self._context.clock.now(), self.processor.progress.reader
            ends = frozen_ends(self._context.log, reader, command.only, command.until, now)
            fact = started(command, now, ends)
            outputs.append(self._output("changes", command.tenant, fact, record))
        positions = outputs_end(self._tools, record.partition)
        replay = begun(fact, (record.partition, record.offset), positions)
        outputs.append(snapshot_output(self._context, replay, headers.cause_for(record)))
        self._chains.append(Chain(taken, outputs, replay))

    def _beginning(self) -> list[Replay]:
        """Replays that are not under way yet, here at least."""
        chained = [each.begins for each in self._chains if each.begins is not None]
        return [*chained, *self._read_backs.replays]

    def _refusal(self, command: StartReplay) -> Refusal | None:
        """Why a replay cannot begin; None if it can. All of a tenant's are on one partition, so here."""
        endpoints = self._tools.remake.those(command.tenant, command.endpoint_id)
        if not any(each.enabled for each in endpoints):
            return Refusal("conflict", nobody(command.endpoint_id))
        replays = [*self._beginning(), *(running.replay for running in self.replays.values())]
        return too_many([each for each in replays if each.tenant == command.tenant])

    def _cancel(self, command: CancelReplay, received: Received, found: Outputs) -> None:
        taken, record = received
        if any(replay.id == command.replay_id for replay in self._beginning()):
            self._early.append((command, received, found))
            return
        running = self.replays.get(command.replay_id)
        if running is not None and running.replay.tenant == command.tenant:
            fact = found.cancelled or cancel(running.replay, command, self._context.clock.now())
            is_told = found.cancelled is not None
            if running.cancel(fact, headers.cause_for(record), taken, is_told=is_told):
                return
        self._reject(command, received, f"replay {command.replay_id!r} has ended, or never began")

    def _reject(
        self, command: ReplayCommand, received: Received, reason: str, code: RejectionCode = "conflict"
    ) -> None:
        taken, record = received
        telemetry.COMMANDS.labels("rejected").inc()
        fact = reject(command, self._context.clock.now(), reason, code)
        self._chains.append(Chain(taken, deque([self._output("changes", command.tenant, fact, record)])))

    def _output(self, topic: str, key: str | None, value: object, record: Record) -> Output:
        encoded, found = self._context.codec.encode(value), {headers.CAUSE: headers.cause_for(record)}
        return Output(topic, record.partition, None if key is None else key.encode(), encoded, found)

    # -- the loop ----------------------------------------------------------------------

    def _advance_chains(self) -> None:
        """Write what may be written next."""
        owned = self.processor.progress.owned
        self._chains = [each for each in self._chains if owned.get(each.taken.owner.at) is each.taken.owner]
        for chain in [each for each in self._chains if not each.is_waiting]:
            if chain.outputs:
                chain.is_waiting = True
                self.processor.send(chain.outputs.popleft(), chain.acknowledged)
            else:
                settle(chain.taken)
                self._chains.remove(chain)
                if chain.begins is not None:
                    self.replays[chain.begins.id] = Running(self._tools, chain.begins, Found())

    def _resume(self) -> None:
        """Look for what replays wrote before they came to us; those of which all is found go on."""
        for replay, _, found in self._read_backs.step(STEP_S):
            self.replays[replay.id] = Running(self._tools, replay, found)
            _LOG.info("replay.resumed", replay=replay.id, written=len(found.written))

    def _advance_replays(self) -> None:
        """Let each replay go on a little, so that one tenant's slow ones hold up no other tenant's."""
        turns: Counter[str] = Counter()
        share_s = STEP_S / max(1, len(self.replays))
        for running in list(self.replays.values()):
            tenant = running.replay.tenant
            turns[tenant] += 1
            if turns[tenant] <= RUNNING_MAX or running.is_ending:
                running.step(share_s)
            else:
                running.wait()
            if running.over:
                running.close()
                self.replays.pop(running.replay.id, None)

    def step(self) -> None:
        """Take commands in, write what is due, advance the replays a little."""
        self.view.advance()
        self._resume()
        is_busy = self._chains or self.replays or self._read_backs.replays
        polled = self.processor.poll(BUSY_POLL_S if is_busy else POLL_S, POLL_MAX)
        self._awaited.polled()
        if self.processor.is_ours:
            self._advance_chains()
        for taken, record in self.processor.each(polled):
            self._take_in(taken, record)
        early, self._early = self._early, []
        for command, received, found in early:
            owner = received.taken.owner
            if self.processor.progress.owned.get(owner.at) is owner:
                self._cancel(command, received, found)
        self._advance_replays()
        telemetry.REPLAYS_RUNNING.set(len(self.replays) + len(self._read_backs.replays))
        telemetry.WINDOW_FILL.labels(GROUP).set(max((each.fill for each in self.replays.values()), default=0))
        self.processor.turn()

    def close(self) -> None:
        """Drain, commit, leave."""
        self.processor.close()
        self._read_backs.close()
        self._originals.close()
        self.view.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    replayer = Replayer(context)
    replayer.view.load()
    ready()
    while not stop.is_set():
        replayer.step()
    replayer.close()
