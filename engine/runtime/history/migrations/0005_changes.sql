-- The audit trail: who did what, when. Kept like its topic, so without a TTL.
CREATE TABLE IF NOT EXISTS {database}.changes
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the change is about; empty: the platform itself',
    subject LowCardinality(String) COMMENT 'Kind of thing that changed, such as endpoint, key, tenant, event_type or replay',
    subject_id String COMMENT 'Id or name of that thing' CODEC(ZSTD(1)),
    change LowCardinality(String) COMMENT 'What happened to it, such as created, disabled, secret_rotated or command_rejected',
    actor LowCardinality(String) COMMENT 'Who asked for it: a key, or a part of hooklog',
    at DateTime64(3, 'UTC') COMMENT 'When it was decided' CODEC(Delta, ZSTD(1)),
    command_id String COMMENT 'Command that led to it' CODEC(ZSTD(1)),
    details String COMMENT 'What else is known of it, as JSON; never a secret' CODEC(ZSTD(3)),
    log_partition UInt32 COMMENT 'Partition on the topic changes of the record this row comes from' CODEC(T64, ZSTD(1)),
    log_offset UInt64 COMMENT 'Offset of that record' CODEC(Delta, ZSTD(1)),
    INDEX by_subject_id subject_id TYPE bloom_filter(0.01) GRANULARITY 2
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (tenant, at, log_partition, log_offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'One row a change; read it through the view audit_trail';

CREATE OR REPLACE VIEW {database}.audit_trail
AS SELECT * EXCEPT (log_partition, log_offset)
FROM {database}.changes FINAL
COMMENT 'Every change of tenants, keys, endpoints, secrets, event types and replays: who did what, when';
