-- marks/add
--
-- Keeps a mark where its name is free. An operator's command, seldom. Locks the new row; waits for a rival
-- with the same name. mark_pkey.
--
-- Parameters: $1 name, $2 position, $3 topics, $4 groups, $5 marked_by, $6 reason

INSERT INTO mark (name, position, topics, groups, marked_at, marked_by, reason)
    VALUES ($1::VARCHAR COLLATE "C", $2::BIGINT, $3::JSONB, $4::JSONB, clock_timestamp(), $5::VARCHAR,
    $6::VARCHAR) ON CONFLICT ON CONSTRAINT mark_pkey DO NOTHING RETURNING mark.marked_at;
