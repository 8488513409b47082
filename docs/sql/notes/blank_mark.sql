-- notes/blank_mark
--
-- Blanks out what a mark says. A step of `orgs erase` or `orgs purge`, for each that says something. Locks
-- the row. mark_pkey.
--
-- Parameters: $1 new_reason, $2 mark_name

UPDATE mark SET reason=$1::VARCHAR WHERE mark.name = $2::VARCHAR;
