-- Rollups of attempts by minute and by hour. Unlike a sum that every insert adds to, their rows
-- are made anew from `attempts` for whatever was touched, so no record counts twice.
-- Also: 56c12b1008c14347b4f095f632abb5e050feb9fe93b95e250b543ac1d7942e7b (coarser indexes; `hooklog rebuild` makes them fine)
CREATE TABLE IF NOT EXISTS {database}.health_1m
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the endpoint belongs to',
    endpoint_id LowCardinality(String) COMMENT 'Endpoint the requests went to',
    minute DateTime('UTC') COMMENT 'Minute in which the requests began' CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'success or failure',
    error_class LowCardinality(String) COMMENT 'Why it is no success; empty for a success',
    accepted_minute DateTime('UTC') COMMENT 'Minute in which the broker appended the messages: a retry has a row of its own' CODEC(Delta, ZSTD(1)),
    attempts UInt64 COMMENT 'Requests made' CODEC(T64, ZSTD(1)),
    bytes UInt64 COMMENT 'Size of the request bodies together, bytes' CODEC(T64, ZSTD(1)),
    duration_us UInt64 COMMENT 'Connect to end of answer, all requests together, microseconds' CODEC(T64, ZSTD(1)),
    durations AggregateFunction(quantilesBFloat16(0.5, 0.95, 0.99), Float32) COMMENT 'Durations in milliseconds, for quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations): within 1 %' CODEC(ZSTD(1)),
    gone UInt8 COMMENT '1 if no such attempt is there any more' CODEC(ZSTD(1)),
    computed_at UInt64 COMMENT 'Of rows with the same key the highest counts: ClickHouse''s clock before it read, nanoseconds since 1970 UTC' CODEC(Delta, ZSTD(1)),
    INDEX by_minute minute TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(computed_at, gone)
PARTITION BY toDate(accepted_minute)
ORDER BY (tenant, endpoint_id, accepted_minute, minute, outcome, error_class)
TTL minute + INTERVAL {rollup_days} DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024
COMMENT 'Attempts by endpoint and minute; read it through the view endpoint_minutes';

CREATE TABLE IF NOT EXISTS {database}.health_1h
(
    tenant LowCardinality(String) COMMENT 'Customer of the platform the endpoint belongs to',
    endpoint_id LowCardinality(String) COMMENT 'Endpoint the requests went to',
    hour DateTime('UTC') COMMENT 'Hour in which the requests began' CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'success or failure',
    error_class LowCardinality(String) COMMENT 'Why it is no success; empty for a success',
    accepted_hour DateTime('UTC') COMMENT 'Hour in which the broker appended the messages: a late retry has a row of its own' CODEC(Delta, ZSTD(1)),
    attempts UInt64 COMMENT 'Requests made' CODEC(T64, ZSTD(1)),
    bytes UInt64 COMMENT 'Size of the request bodies together, bytes' CODEC(T64, ZSTD(1)),
    duration_us UInt64 COMMENT 'Connect to end of answer, all requests together, microseconds' CODEC(T64, ZSTD(1)),
    durations AggregateFunction(quantilesBFloat16(0.5, 0.95, 0.99), Float32) COMMENT 'Durations in milliseconds, for quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations): within 1 %' CODEC(ZSTD(1)),
    gone UInt8 COMMENT '1 if no such attempt is there any more' CODEC(ZSTD(1)),
    computed_at UInt64 COMMENT 'Of rows with the same key the highest counts: ClickHouse''s clock before it read, nanoseconds since 1970 UTC' CODEC(Delta, ZSTD(1)),
    INDEX by_hour hour TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(computed_at, gone)
PARTITION BY toYYYYMM(accepted_hour)
ORDER BY (tenant, endpoint_id, accepted_hour, hour, outcome, error_class)
TTL hour + INTERVAL {rollup_days} DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 1024
COMMENT 'Attempts by endpoint and hour; read it through the view endpoint_hours';

-- What a projector is about to make anew: too much for a query's text.
CREATE TABLE IF NOT EXISTS {database}.touched
(
    run UInt64 COMMENT 'When it was begun: ClickHouse''s clock, nanoseconds since 1970 UTC',
    tenant LowCardinality(String) COMMENT 'Customer of the platform the endpoint belongs to',
    endpoint_id LowCardinality(String) COMMENT 'Endpoint of which an attempt was written',
    accepted_minute DateTime('UTC') COMMENT 'Minute in which the broker appended its message'
)
ENGINE = MergeTree
ORDER BY run
TTL toDateTime(intDiv(run, 1000000000)) + INTERVAL 1 HOUR
SETTINGS ttl_only_drop_parts = 1
COMMENT 'Of which endpoints and minutes the rollups are made anew';

CREATE OR REPLACE VIEW {database}.endpoint_minutes
AS SELECT * EXCEPT (accepted_minute, gone, computed_at)
FROM {database}.health_1m FINAL
COMMENT 'Attempts by endpoint, minute, outcome and error class; of one minute there may be several rows: sum them';

CREATE OR REPLACE VIEW {database}.endpoint_hours
AS SELECT * EXCEPT (accepted_hour, gone, computed_at)
FROM {database}.health_1h FINAL
COMMENT 'Attempts by endpoint, hour, outcome and error class; of one hour there may be several rows: sum them';
