-- scratch/note_given_up
--
-- Keeps who gave up names. With recorded/find_given_up. Temporary tables only.
--
-- Parameters: $1 keys, $2 positions, $3 ids

INSERT INTO given_up SELECT * FROM unnest($1::TEXT[], $2::BIGINT[], $3::UUID[]);
