-- notes/blank_shown
--
-- Blanks out what an operation under way shows. A step of `orgs erase` or `orgs purge`, for each that says
-- something. Locks the row. operation_pkey.
--
-- Parameters: $1 new_sample, $2 new_reason, $3 new_notes, $4 operation_id

UPDATE operation SET sample=$1::JSONB, reason=$2::VARCHAR, notes=$3::JSONB WHERE operation.id = $4::UUID;
