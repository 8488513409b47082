-- restoring/lock_head
--
-- Locks the journal's head, and reads it. A rebuild or a recovery: workers wait from here on. One row.

SELECT position FROM journal_head FOR UPDATE;
