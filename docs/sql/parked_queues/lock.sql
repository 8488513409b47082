-- parked_queues/lock
--
-- Locks records that are about to be released or discarded. An operator's command, seldom, in each step,
-- after the organizations. Row locks (FOR UPDATE) in order of id until the commit. parked_pkey.
--
-- Parameters: $1 given_ids

SELECT parked.id, parked.attempts
FROM parked
WHERE parked.state = 'open' AND parked.id = any($1::BIGINT[]) ORDER BY parked.id FOR UPDATE;
