-- recovery/set_head
--
-- Sets the head of the journal. An operator's command, seldom. The row is locked already.
--
-- Parameters: $1 head

UPDATE journal_head SET position=$1::BIGINT;
