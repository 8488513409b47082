-- parked_queues/select_queues
--
-- Finds the next organizations that have a record of a selection in their queue, and whether one of their
-- commands was released as often as may be. An operator's command, seldom. No lock. parked_org_id_idx.
--
-- Parameters: $1 state, $2 loose, $3 through_id, $4 ids, $5 org_ids, $6 command_ids, $7 topic, $8 reason, $9
--   cause, $10 exhausted, $11 from_time, $12 to_time, $13 after_org_id, $14 limit

SELECT page.org_id, EXISTS (SELECT *
FROM parked AS parked_1
WHERE parked_1.org_id = page.org_id AND parked_1.state = 'open' AND parked_1.command_id IS NOT NULL
    AND parked_1.attempts > 3) AS anon_1
FROM (SELECT parked.org_id AS org_id
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL AND parked.org_id IS NOT NULL
    AND ($1::VARCHAR IS NULL OR parked.state = $1::VARCHAR) AND ($2::BOOLEAN IS NULL
    OR (parked.command_id IS NULL OR parked.org_id IS NULL) = $2::BOOLEAN) AND ($3::BIGINT IS NULL
    OR parked.id <= $3::BIGINT) AND ($4::BIGINT[] IS NULL OR parked.id = any($4::BIGINT[]))
    AND ($5::UUID[] IS NULL OR parked.org_id = any($5::UUID[])) AND ($6::UUID[] IS NULL
    OR parked.command_id = any($6::UUID[])) AND ($7::VARCHAR IS NULL OR parked.topic = $7::VARCHAR)
    AND ($8::VARCHAR IS NULL OR parked.reason = $8::VARCHAR) AND ($9::VARCHAR IS NULL
    OR split_part(parked.detail, '; ', 1) = $9::VARCHAR) AND ($10::BOOLEAN IS NULL
    OR (parked.attempts > 3) = $10::BOOLEAN) AND ($11::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at >= $11::TIMESTAMP WITH TIME ZONE) AND ($12::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at < $12::TIMESTAMP WITH TIME ZONE)
    AND parked.org_id > $13::UUID GROUP BY parked.org_id ORDER BY parked.org_id
LIMIT $14::INTEGER) AS page ORDER BY page.org_id;
