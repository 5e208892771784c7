-- What analysts read: every row once and in its latest state, without a word about engines.
CREATE OR REPLACE VIEW {database}.accepted_messages
AS SELECT * EXCEPT (version, log_partition, log_offset)
FROM {database}.messages FINAL
COMMENT 'Every message that was accepted, once';

CREATE OR REPLACE VIEW {database}.delivery_status
AS SELECT * EXCEPT (version, log_partition, log_offset)
FROM {database}.deliveries FINAL
COMMENT 'Every delivery, once, in its current state';

CREATE OR REPLACE VIEW {database}.delivery_attempts
AS SELECT * EXCEPT (version, log_partition, log_offset)
FROM {database}.attempts FINAL
COMMENT 'Every attempt, once';

CREATE OR REPLACE VIEW {database}.failed_deliveries
AS SELECT * EXCEPT (version, log_partition, log_offset)
FROM {database}.deliveries FINAL
WHERE status = 'failed'
COMMENT 'Every delivery that ended failed, with why';
