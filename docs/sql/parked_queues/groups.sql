-- parked_queues/groups
--
-- Groups what is open by its cause. An operator's command, seldom. No lock. Reads the whole table.
--
-- Parameters: $1 param_1 = 1000

SELECT parked.topic, parked.reason, split_part(parked.detail, '; ', 1) AS cause,
    parked.attempts > 3 AS exhausted, count(*) AS records, min(parked.recorded_at) AS min_1,
    min(parked.broker_time) AS min_2, count(queues.head) AS count_1, coalesce(sum(queues.commands - 1),
    0) AS coalesce_1
FROM parked LEFT OUTER JOIN (SELECT min(parked.id) AS head, count(*) AS commands
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL
    AND parked.org_id IS NOT NULL GROUP BY parked.org_id) AS queues ON queues.head = parked.id
WHERE parked.state = 'open' AND (parked.command_id IS NULL OR parked.org_id IS NULL
    OR queues.head IS NOT NULL) GROUP BY parked.topic, parked.reason, cause, exhausted ORDER BY records DESC,
    parked.reason, cause
LIMIT $1::INTEGER;
