-- scratch/find_waiting
--
-- Finds commands that the rehearsal parked. A rehearsal, for each batch once something differed. Temporary
-- tables only.
--
-- Parameters: $1 ids

SELECT command_id, org_id, request_digest, partition, "offset" FROM waiting WHERE org_id = ANY($1::UUID[]);
