-- The state of every delivery: one message to one endpoint.
-- Also: b4ed6526dceed883f55134e946c9e9f5ce6192531c147b6d6c0b6b4f11669301 (coarser indexes; `hooklog rebuild` makes them fine)
CREATE TABLE IF NOT EXISTS {database}.deliveries
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the endpoint belongs to',
    endpoint_id LowCardinality(String) COMMENT 'Endpoint the message goes to',
    message_id String COMMENT 'The producer''s id of the message' CODEC(ZSTD(1)),
    delivery_id String COMMENT 'Id of this delivery, derived from the message''s coordinates and the endpoint' CODEC(ZSTD(1)),
    event_type LowCardinality(String) COMMENT 'The message''s event type',
    status LowCardinality(String) COMMENT 'delivered, failed, pending or skipped',
    reason LowCardinality(String) COMMENT 'Why failed or skipped',
    error_class LowCardinality(String) COMMENT 'What went wrong at the last attempt; empty if nothing did',
    status_code UInt16 COMMENT 'HTTP status of the last attempt; 0 without an answer' CODEC(T64, ZSTD(1)),
    attempts UInt32 COMMENT 'Requests made so far' CODEC(T64, ZSTD(1)),
    accepted_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the message' CODEC(Delta, ZSTD(1)),
    updated_at DateTime64(3, 'UTC') COMMENT 'When the record that led to this state was appended' CODEC(Delta, ZSTD(1)),
    next_attempt_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the next attempt is due, if a retry is' CODEC(ZSTD(1)),
    origin String COMMENT 'Resend or replay that made this delivery; empty for the first time' CODEC(ZSTD(1)),
    topic_partition UInt32 COMMENT 'Partition of the message on the topic messages' CODEC(T64, ZSTD(1)),
    topic_offset UInt64 COMMENT 'Offset of the message there' CODEC(Delta, ZSTD(1)),
    log_partition UInt32 COMMENT 'Partition of the record this state comes from: on attempts, or on routings before the first attempt' CODEC(T64, ZSTD(1)),
    log_offset UInt64 COMMENT 'Offset of that record' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'Of rows with the same key the highest counts: the latest attempt, and of that its first record' CODEC(ZSTD(1)),
    INDEX by_message_id message_id TYPE bloom_filter(0.01) GRANULARITY 2,
    INDEX by_delivery_id delivery_id TYPE bloom_filter(0.01) GRANULARITY 2
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, endpoint_id, accepted_at, delivery_id)
TTL toDateTime(accepted_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024, non_replicated_deduplication_window = 10000
COMMENT 'Current state of each delivery; read it through the view delivery_status';
