-- recorded/find_parked_records
--
-- Finds what is or was parked at offsets. A rehearsal, for each batch, for records without an outcome. No
-- lock. parked_coordinates_key.
--
-- Parameters: $1 at_partition, $2 at_offset, $3 topic

SELECT parked.partition, parked."offset", parked.broker_time, parked.org_id, parked.command_id,
    parked.request_digest, parked.reason, parked.state, parked.actor, parked.authenticated_by
FROM parked JOIN unnest($1::INTEGER[], $2::BIGINT[]) AS at(partition, "offset")
    ON parked.partition = at.partition AND parked."offset" = at."offset"
WHERE parked.topic = $3::VARCHAR;
