-- parked_queues/read_last_id
--
-- Reads the last id given out, where a plan ends. An operator's command, seldom. No lock. parked_pkey.
--
-- Parameters: $1 coalesce_2 = 0

SELECT coalesce(max(parked.id), $1::INTEGER) AS coalesce_1
FROM parked;
