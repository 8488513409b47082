-- parked/find
--
-- Finds open parked commands: organizations that have some, and commands of the batch that are some. The
-- worker, once in each batch, after the locks. No lock. parked_org_id_idx and parked_command_id_idx.
--
-- Parameters: $1 param_1, $2 asked_org_id, $3 ids

SELECT asked.org_id, $1::BYTEA AS anon_1
FROM unnest($2::UUID[]) AS asked(org_id)
WHERE EXISTS (SELECT *
FROM parked
WHERE parked.org_id = asked.org_id AND parked.state = 'open' AND parked.command_id IS NOT NULL)
    UNION ALL SELECT parked.command_id, parked.request_digest
FROM parked
WHERE parked.command_id = any($3::UUID[]) AND parked.state = 'open' AND parked.command_id IS NOT NULL;
