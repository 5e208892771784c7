-- One row an attempt: one HTTP request of a delivery.
-- Also: d4f3bbd48528c4f6558641984f7d6dc64eb7072302097adbd11261ec9cc303ad (coarser indexes; `hooklog rebuild` makes them fine)
CREATE TABLE IF NOT EXISTS {database}.attempts
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the endpoint belongs to',
    endpoint_id LowCardinality(String) COMMENT 'Endpoint the request went to',
    message_id String COMMENT 'The producer''s id of the message' CODEC(ZSTD(1)),
    delivery_id String COMMENT 'Delivery the attempt belongs to' CODEC(ZSTD(1)),
    attempt UInt32 COMMENT 'Number of the attempt, from 1' CODEC(T64, ZSTD(1)),
    trigger LowCardinality(String) COMMENT 'scheduled, resend, replay or test',
    event_type LowCardinality(String) COMMENT 'The message''s event type',
    accepted_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the message' CODEC(Delta, ZSTD(1)),
    attempted_at DateTime64(3, 'UTC') COMMENT 'When the request began' CODEC(Delta, ZSTD(1)),
    duration_ms Float32 COMMENT 'Connect to end of answer, milliseconds' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'success or failure',
    status_code UInt16 COMMENT 'HTTP status; 0 without an answer' CODEC(T64, ZSTD(1)),
    error_class LowCardinality(String) COMMENT 'Why it is no success; empty for a success',
    error String COMMENT 'The error in words' CODEC(ZSTD(1)),
    decision LowCardinality(String) COMMENT 'What followed: delivered, retry, failed or skipped',
    reason LowCardinality(String) COMMENT 'Why failed or skipped',
    next_attempt_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the next attempt is due, if a retry is' CODEC(ZSTD(1)),
    request_bytes UInt32 COMMENT 'Size of the request body, bytes' CODEC(T64, ZSTD(1)),
    response_body String COMMENT 'The first bytes of the answer''s body; what is no UTF-8 is replaced' CODEC(ZSTD(3)),
    origin String COMMENT 'Resend or replay that made the delivery; empty for the first time' CODEC(ZSTD(1)),
    worker LowCardinality(String) COMMENT 'Process that made the request',
    log_partition UInt32 COMMENT 'Partition on the topic attempts of the record this row comes from' CODEC(T64, ZSTD(1)),
    log_offset UInt64 COMMENT 'Offset of that record' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'Of rows with the same key the highest counts: the first record on the log' CODEC(Delta, ZSTD(1)),
    INDEX by_message_id message_id TYPE bloom_filter(0.01) GRANULARITY 2,
    INDEX by_delivery_id delivery_id TYPE bloom_filter(0.01) GRANULARITY 2
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, endpoint_id, accepted_at, delivery_id, attempt)
TTL toDateTime(accepted_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024, non_replicated_deduplication_window = 10000
COMMENT 'One row an attempt; read it through the view delivery_attempts';
