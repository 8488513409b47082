-- parked_queues/groups
--
-- Groups what is open by its cause. An operator's command, seldom, and the pages of what is parked. No lock.
-- parked_org_id_idx alone for the queues, parked_loose_idx for the rest, then parked_pkey for the first of
-- each.
--
-- Parameters: $1 param_1 = 1000

SELECT parked.topic, parked.reason, split_part(parked.detail, '; ', 1) AS cause,
    parked.attempts > 3 AS exhausted, count(*) AS records, min(parked.recorded_at) AS min_1,
    min(parked.broker_time) AS min_2, count(heads.commands) AS count_1, coalesce(sum(heads.commands - 1),
    0) AS coalesce_1
FROM (SELECT min(parked.id) AS id, count(*) AS commands
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL
    AND parked.org_id IS NOT NULL GROUP BY parked.org_id UNION ALL SELECT parked.id AS id, NULL AS anon_1
FROM parked
WHERE parked.state = 'open' AND (parked.command_id IS NULL OR parked.org_id IS NULL)) AS heads JOIN parked
    ON parked.id = heads.id GROUP BY parked.topic, parked.reason, cause, exhausted ORDER BY records DESC,
    parked.reason, cause
LIMIT $1::INTEGER;
