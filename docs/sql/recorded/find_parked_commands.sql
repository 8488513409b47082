-- recorded/find_parked_commands
--
-- Finds what is or was parked of commands. A rehearsal, for each batch, for records without an outcome. No
-- lock. parked_command_id_idx.
--
-- Parameters: $1 ids

SELECT parked.partition, parked."offset", parked.broker_time, parked.org_id, parked.command_id,
    parked.request_digest, parked.reason, parked.state, parked.actor, parked.authenticated_by
FROM parked
WHERE parked.command_id = any($1::UUID[]);
