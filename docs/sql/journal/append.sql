-- journal/append
--
-- Appends the rows of a batch. The worker, once in each batch, after take_positions. Locks the new rows; a
-- command id that a rival journaled fails at journal_command_id_key.

COPY "journal" ("position", "command_id", "org_id", "version", "command_type", "event_type", "outcome",
    "code", "actor", "request_digest", "command_partition", "command_offset", "changed", "before", "after",
    "problem", "traceparent", "recorded_at", "command_time_ms") FROM STDIN (FORMAT binary);
