-- erasing/empty_others
--
-- Empties their other outcomes. A step of `orgs erase` or `orgs purge`. Locks these rows, which nobody else
-- writes. journal_org_id_unchanged_idx.
--
-- Parameters: $1 actor, $2 request_digest = b'', $3 before, $4 after, $5 json_build_object_1 = type, $6
--   param_1 = type, $7 json_build_object_2 = title, $8 param_2 = title, $9 json_build_object_3 = status, $10
--   param_3 = status, $11 json_build_object_4 = detail, $12 json_build_object_5 = The organization was erased
--   since, and what this outcome said of it with it., $13 json_build_object_6 = errors, $14 ids

UPDATE journal SET actor=$1::VARCHAR, request_digest=$2::BYTEA, before=$3::VARCHAR, after=$4::VARCHAR,
    problem=CASE WHEN (journal.problem IS NOT NULL) THEN CAST(json_build_object($5::VARCHAR,
    CAST(journal.problem AS JSON) -> $6::TEXT, $7::VARCHAR, CAST(journal.problem AS JSON) -> $8::TEXT,
    $9::VARCHAR, CAST(journal.problem AS JSON) -> $10::TEXT, $11::VARCHAR, $12::VARCHAR, $13::VARCHAR,
    json_build_array()) AS TEXT) END WHERE journal.org_id = any($14::UUID[]) AND journal.event_type IS NULL
    AND journal.org_id IS NOT NULL;
