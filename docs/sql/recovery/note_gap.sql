-- recovery/note_gap
--
-- Notes which positions are given up. An operator's command, seldom. Locks the new row.
--
-- Parameters: $1 first, $2 last

INSERT INTO journal_gap (first_position, last_position, noted_at) VALUES ($1::BIGINT, $2::BIGINT, now());
