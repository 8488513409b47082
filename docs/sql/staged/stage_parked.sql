-- staged/stage_parked
--
-- Keeps which commands were said to be parked. A rebuild or a recovery, for each step of results.
--
-- Parameters: $1 ids

INSERT INTO restoring_parked SELECT DISTINCT unnest($1::UUID[]) ON CONFLICT DO NOTHING;
