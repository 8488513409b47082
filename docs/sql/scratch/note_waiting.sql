-- scratch/note_waiting
--
-- Keeps commands that the rehearsal parked. A rehearsal, for each batch once something differed. Temporary
-- tables only.
--
-- Parameters: $1 command_id, $2 org_id, $3 request_digest, $4 partition, $5 offset

INSERT INTO waiting VALUES ($1::UUID, $2::UUID, $3, $4::INTEGER, $5::BIGINT) ON CONFLICT DO NOTHING;
