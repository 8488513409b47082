-- recovery/lock_head
--
-- Locks the head of the journal and reads it. An operator's command, seldom. Every worker waits until the
-- commit.

SELECT journal_head.position
FROM journal_head FOR UPDATE;
