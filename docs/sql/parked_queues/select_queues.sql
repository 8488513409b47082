-- parked_queues/select_queues
--
-- Finds the next organizations that have a record of a selection in their queue, and whether one of their
-- commands was released as often as may be. An operator's command, seldom. No lock. parked_org_id_idx.
--
-- Parameters: $1 through_id, $2 ids, $3 org_ids, $4 command_ids, $5 topic, $6 reason, $7 cause, $8 exhausted,
--   $9 from_time, $10 to_time, $11 after_org_id, $12 limit

SELECT parked.org_id, bool_or(EXISTS (SELECT *
FROM parked AS parked_1
WHERE parked_1.org_id = parked.org_id AND parked_1.state = 'open' AND parked_1.command_id IS NOT NULL
    AND parked_1.attempts > 3)) AS bool_or_1
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL AND parked.org_id IS NOT NULL
    AND parked.id <= $1::BIGINT AND ($2::BIGINT[] IS NULL OR parked.id = any($2::BIGINT[]))
    AND ($3::UUID[] IS NULL OR parked.org_id = any($3::UUID[])) AND ($4::UUID[] IS NULL
    OR parked.command_id = any($4::UUID[])) AND ($5::VARCHAR IS NULL OR parked.topic = $5::VARCHAR)
    AND ($6::VARCHAR IS NULL OR parked.reason = $6::VARCHAR) AND ($7::VARCHAR IS NULL
    OR split_part(parked.detail, '; ', 1) = $7::VARCHAR) AND ($8::BOOLEAN IS NULL
    OR (parked.attempts > 3) = $8::BOOLEAN) AND ($9::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at >= $9::TIMESTAMP WITH TIME ZONE) AND ($10::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at < $10::TIMESTAMP WITH TIME ZONE)
    AND parked.org_id > $11::UUID GROUP BY parked.org_id ORDER BY parked.org_id
LIMIT $12::INTEGER;
