-- restoring/take_head
--
-- Takes the journal's head away, so that nobody writes until it is back. A rebuild or a recovery, first.

DELETE FROM journal_head;
