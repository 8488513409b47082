-- parked_queues/read_ends
--
-- Reads where the queues of organizations begin, and how long they are. An operator's command, seldom, in
-- each step, after the locks. No lock. parked_org_id_idx.
--
-- Parameters: $1 given_org_ids

SELECT parked.org_id, min(parked.id) AS min_1, count(*) AS count_1
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL AND parked.org_id IS NOT NULL
    AND parked.org_id = any($1::UUID[]) GROUP BY parked.org_id;
