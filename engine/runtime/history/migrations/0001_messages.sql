-- One row a message that was routed. No payload: that stays on the log.
-- Also: 6084002d865b972339f51f84e27143afa7e22a9d4a9ad26f7a5a25a1e0e35026 (coarser indexes; `hooklog rebuild` makes them fine)
CREATE TABLE IF NOT EXISTS {database}.messages
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the message is for',
    message_id String COMMENT 'The producer''s id of the message' CODEC(ZSTD(1)),
    event_type LowCardinality(String) COMMENT 'What happened, such as room.ended',
    accepted_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the message' CODEC(Delta, ZSTD(1)),
    bytes UInt32 COMMENT 'Size of the payload, bytes' CODEC(T64, ZSTD(1)),
    digest String COMMENT 'First 16 bytes of the payload''s SHA-256, hexadecimal' CODEC(ZSTD(1)),
    matched UInt32 COMMENT 'Endpoints that get a delivery' CODEC(T64, ZSTD(1)),
    skipped UInt32 COMMENT 'Endpoints that matched and get none' CODEC(T64, ZSTD(1)),
    topic_partition UInt32 COMMENT 'Partition of the message on the topic messages' CODEC(T64, ZSTD(1)),
    topic_offset UInt64 COMMENT 'Offset of the message there' CODEC(Delta, ZSTD(1)),
    log_partition UInt32 COMMENT 'Partition on routings of the record this row comes from' CODEC(T64, ZSTD(1)),
    log_offset UInt64 COMMENT 'Offset of that record' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'Of rows with the same key the highest counts: the first record on the log' CODEC(Delta, ZSTD(1)),
    INDEX by_message_id message_id TYPE bloom_filter(0.01) GRANULARITY 2
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(accepted_at)
ORDER BY (tenant, accepted_at, topic_partition, topic_offset)
TTL toDateTime(accepted_at) + INTERVAL {retention_days} DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024, non_replicated_deduplication_window = 10000
COMMENT 'One row a message; read it through the view accepted_messages';
