-- parked/count
--
-- Counts parked records by state, reason and cause. An operator's command, seldom. No lock. Reads the whole
-- table.
--
-- Parameters: $1 reason_1 = [<ParkReason.HANDLER_RAISED: 'handler_raised'>, <ParkReason.DATA_REFUSED:
--   'data_refused'>], $2 param_1 = 100

SELECT parked.state, parked.reason,
    CASE WHEN (parked.reason IN (__[POSTCOMPILE_reason_1])) THEN parked.detail END AS cause,
    count(*) AS records
FROM parked GROUP BY parked.state, parked.reason, cause ORDER BY parked.state, records DESC, parked.reason,
    cause
LIMIT $1::INTEGER;
