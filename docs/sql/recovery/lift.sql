-- recovery/lift
--
-- Moves fresh rows out of the way, to negative positions. An operator's command, seldom. Locks these rows.
-- journal_pkey.
--
-- Parameters: $1 restored

UPDATE journal SET position=(-journal.position) WHERE journal.position > $1::BIGINT;
