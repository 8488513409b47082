-- staged/stage_lost
--
-- Keeps commands whose outcome is gone. A rebuild or a recovery, for each step of commands.
--
-- Parameters: $1 ids

INSERT INTO restoring_lost SELECT DISTINCT ON (command_id) * FROM restoring_command
    WHERE command_id = ANY($1::UUID[]) ORDER BY command_id, partition, "offset" ON CONFLICT DO NOTHING;
