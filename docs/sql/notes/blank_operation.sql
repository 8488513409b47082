-- notes/blank_operation
--
-- Blanks out what an ended operation says. A step of `orgs erase` or `orgs purge`, for each that says
-- something. Locks the row. operation_pkey.
--
-- Parameters: $1 new_parameters, $2 new_facts, $3 new_sample, $4 new_reason, $5 new_progress, $6 new_error,
--   $7 new_notes, $8 operation_id

UPDATE operation SET parameters=$1::JSONB, facts=$2::JSONB, sample=$3::JSONB, reason=$4::VARCHAR,
    progress=$5::JSONB, error=$6::VARCHAR, notes=$7::JSONB WHERE operation.id = $8::UUID;
