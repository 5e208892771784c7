"""The log on Apache Kafka. Only this package imports confluent_kafka."""

from engine.runtime.kafka.admin import KafkaAdmin
from engine.runtime.kafka.log import KafkaLog

__all__ = ["KafkaAdmin", "KafkaLog"]
