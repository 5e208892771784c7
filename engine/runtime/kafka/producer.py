"""Writing: idempotent and acknowledged by all, or in transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from engine.ports import Acknowledged, Consumer, LogError, Output
from engine.ports import TopicPartition as Partition
from engine.runtime.kafka.client import Cluster
from engine.runtime.kafka.consumer import KafkaConsumer

_TRANSACTION_TIMEOUT_MS = 10_000
_WAIT_S = 30


def _tell(acknowledged: Acknowledged, error: KafkaError | None, message: Message) -> None:
    if error is not None:
        raise LogError(f"a record for {message.topic()} was refused: {error.str()}")
    acknowledged(cast(int, message.offset()))


class KafkaProducer:
    """ports.Producer on Kafka. A record that is finally refused raises from `poll`."""

    def __init__(self, cluster: Cluster, linger_ms: float) -> None:
        self._topics = _Topics(cluster)
        self._client = Client(
            cluster.config(
                enable_idempotence=True,
                acks="all",
                linger_ms=linger_ms,
                batch_num_messages=5_000,
                # one request under way: what comes meanwhile shares the next, so load makes batches by itself
                max_in_flight_requests_per_connection=1,
                message_max_bytes=2 << 20,
                delivery_timeout_ms=300_000,
            )
        )
        self._client.list_topics(timeout=_WAIT_S)

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Queue it; waits for room if the queue is full."""
        while True:
            try:
                self._client.produce(
                    self._topics.full(output.topic),
                    output.value,
                    output.key,
                    output.partition,
                    on_delivery=partial(_tell, acknowledged),
                    headers=cast("dict[str, str | bytes | None]", output.headers),
                )
            except BufferError:
                self._client.poll(0.1)
            else:
                return

    def poll(self, timeout: float = 0) -> None:
        """Run the callbacks of what has been acknowledged."""
        self._client.poll(timeout)

    def flush(self, timeout: float) -> bool:
        """True when everything sent is acknowledged."""
        return self._client.flush(timeout) == 0

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

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._client = Client(
            cluster.config(
                transactional_id=cluster.full(name),
                transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
                linger_ms=1,
                message_max_bytes=2 << 20,
            )
        )
        self._client.init_transactions(_WAIT_S)

    def write(self, outputs: Sequence[Output], consumed: Mapping[Partition, int], consumer: Consumer) -> None:
        """One transaction: all of it or, with an error raised, nothing."""
        assert isinstance(consumer, KafkaConsumer)
        self._client.begin_transaction()
        try:
            for output in outputs:
                self._client.produce(
                    self._cluster.full(output.topic),
                    output.value,
                    output.key,
                    output.partition,
                    headers=cast("dict[str, str | bytes | None]", output.headers),
                )
            offsets = [self._cluster.at(at, offset) for at, offset in consumed.items()]
            self._client.send_offsets_to_transaction(offsets, consumer.group_metadata(), _WAIT_S)
            self._client.commit_transaction(_WAIT_S)
        except KafkaException as error:
            raise LogError(f"a transaction failed and left nothing behind: {error}") from error
