-- recovery/put_down
--
-- Puts fresh rows behind what was published. An operator's command, seldom. Locks these rows. journal_pkey.
--
-- Parameters: $1 shift, $2 position_1 = 0

UPDATE journal SET position=($1::BIGINT - journal.position) WHERE journal.position < $2::BIGINT;
