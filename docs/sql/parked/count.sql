-- parked/count
--
-- Counts parked records by state, reason and cause. An operator's command, seldom. No lock. Reads the whole
-- table.
--
-- Parameters: $1 param_1 = 100, $2 reason_1_1 = handler_raised, $3 reason_1_2 = data_refused

SELECT parked.state, parked.reason, CASE WHEN (parked.reason IN ($2::VARCHAR,
    $3::VARCHAR)) THEN parked.detail END AS cause, count(*) AS records
FROM parked GROUP BY parked.state, parked.reason, cause ORDER BY parked.state, records DESC, parked.reason,
    cause
LIMIT $1::INTEGER;
