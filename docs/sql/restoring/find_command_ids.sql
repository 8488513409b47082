-- restoring/find_command_ids
--
-- Whose outcomes stand at positions, to compare a backup with the topics. The plan of `orgs recover`. No
-- lock. journal_pkey.
--
-- Parameters: $1 positions

SELECT position, command_id FROM journal WHERE position = ANY($1::BIGINT[]);
