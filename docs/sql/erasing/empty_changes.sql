-- erasing/empty_changes
--
-- Empties their changes in the journal. A step of `orgs erase` or `orgs purge`. Locks these rows, which
-- nobody else writes. journal_org_id_version_key.
--
-- Parameters: $1 actor, $2 request_digest = b'', $3 before, $4 after, $5 ids

UPDATE journal SET actor=$1::VARCHAR, request_digest=$2::BYTEA, before=$3::VARCHAR, after=$4::VARCHAR
    WHERE journal.org_id = any($5::UUID[]) AND journal.event_type IS NOT NULL;
