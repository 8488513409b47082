-- parked_queues/find
--
-- Reads one record with what it holds. An operator's command, seldom. No lock. parked_pkey.
--
-- Parameters: $1 id

SELECT parked.id, parked.topic, parked.partition, parked."offset", parked.broker_time, parked.key,
    parked.value, parked.headers, parked.org_id, parked.command_id, parked.request_digest, parked.reason,
    parked.detail, parked.attempts, parked.state, parked.actor, parked.authenticated_by, parked.value_bytes,
    parked.recorded_at
FROM parked
WHERE parked.id = $1::BIGINT;
