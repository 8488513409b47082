-- journal/find_command_id
--
-- Reads whose outcome is at a position. The relay, when it begins to lead. No lock. journal_pkey.
--
-- Parameters: $1 position

SELECT journal.command_id
FROM journal
WHERE journal.position = $1::BIGINT;
