"""Writing: idempotent and acknowledged by all, or in transactions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from engine.ports import Acknowledged, Consumer, LogError, Output, QueueFullError, TopicPartition
from engine.runtime.kafka.client import Cluster, Config, log_error, mapped
from engine.runtime.kafka.consumer import KafkaConsumer
from engine.runtime.topics import MESSAGE_MAX
from engine.runtime.vitals import Sign

_TRANSACTION_TIMEOUT_MS = 10_000
_WAIT_S = 30
QUEUE_KBYTES = 128 << 10
_QUEUE: Config = {
    "message.max.bytes": MESSAGE_MAX,
    "queue.buffering.max.kbytes": QUEUE_KBYTES,
    "queue.buffering.max.messages": 1_000_000,
}


def _produce(client: Client, topic: str, output: Output, **more: Any) -> None:
    """Queue it, or QueueFullError; unlike the usual way never polls: callbacks belong to one thread."""
    try:
        client.produce(
            topic,
            output.value,
            output.key,
            output.partition,
            headers=cast("dict[str, str | bytes | None]", output.headers),
            **more,
        )
    except BufferError:
        raise QueueFullError(f"{len(client)} records wait for Kafka's acknowledgement") from None
    except KafkaException as error:
        raise log_error(f"a record for {topic} was refused", error) from error


class KafkaProducer:
    """ports.Producer on Kafka. A record that is finally refused raises from `poll`."""

    def __init__(self, cluster: Cluster, linger_ms: float, sign: Sign) -> None:
        self._topics = _Topics(cluster)
        self._sign = sign
        self._answered = False
        """Whether something was acknowledged since that was last looked at."""
        self._client = Client(
            _QUEUE
            | cluster.config(
                enable_idempotence=True,
                acks="all",
                linger_ms=linger_ms,
                batch_num_messages=5_000,
                # one request under way: what comes meanwhile shares the next, so load makes batches by itself
                max_in_flight_requests_per_connection=1,
                delivery_timeout_ms=300_000,
            )
        )
        sign.queued = self._client.__len__
        with mapped("no broker answers the producer"):
            self._client.list_topics(timeout=_WAIT_S)

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Queue it; QueueFullError if there is no room."""
        topic = self._topics.full(output.topic)
        _produce(self._client, topic, output, on_delivery=partial(self._tell, acknowledged))
        if self._sign.waits_since is None:
            self._sign.asked(time.monotonic())

    def _tell(self, acknowledged: Acknowledged, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise LogError(
                f"a record for {message.topic()} was refused ({error.str()}): "
                "its input is not committed, so it is done again after the restart"
            )
        self._answered = True
        acknowledged(cast(int, message.offset()))

    def poll(self, timeout: float = 0) -> None:
        """Run the callbacks of what has been acknowledged."""
        self._client.poll(timeout)
        if self._answered:
            self._answered = False
            self._sign.waits_since = time.monotonic() if len(self._client) else None

    def flush(self, timeout: float) -> bool:
        """True when everything sent is acknowledged."""
        left = self._client.flush(timeout)
        self.poll()
        return left == 0

    def __len__(self) -> int:
        return len(self._client)


class _Topics(dict[str, str]):
    """Full names by bare ones, made once."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def full(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            found = self[name] = self._cluster.full(name)
        return found


class KafkaTransactions:
    """ports.Transactions on Kafka; taking the name fences its last owner."""

    def __init__(self, cluster: Cluster, name: str, sign: Sign) -> None:
        self._cluster = cluster
        self._sign = sign
        self._client = Client(
            _QUEUE
            | cluster.config(
                transactional_id=cluster.full(name),
                transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
                linger_ms=1,
            )
        )
        sign.queued = self._client.__len__
        with mapped(f"the transactional name {name} could not be taken"):
            self._client.init_transactions(_WAIT_S)

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """One transaction: all of it or nothing; of a commit that failed only a restart tells which."""
        assert isinstance(consumer, KafkaConsumer)
        self._sign.asked(time.monotonic())
        with mapped("a transaction failed and left nothing behind"):
            self._client.begin_transaction()
            for output in outputs:
                _produce(self._client, self._cluster.full(output.topic), output)
            offsets = [self._cluster.at(at, offset) for at, offset in consumed.items()]
            self._client.send_offsets_to_transaction(offsets, consumer.group_metadata(), _WAIT_S)
        with mapped("a transaction's commit failed, and may have succeeded all the same"):
            self._client.commit_transaction(_WAIT_S)
        consumer.backlog.done(consumed)
        self._sign.waits_since = None
