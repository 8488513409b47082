-- notes/blank_shown
--
-- Blanks out what an operation under way shows. A step of `orgs erase` or `orgs purge`, for each that says
-- something. Locks the row. operation_pkey.
--
-- Parameters: $1 new_sample, $2 new_reason, $3 operation_id

UPDATE operation SET sample=$1::JSONB, reason=$2::VARCHAR WHERE operation.id = $3::UUID;
