-- accepted/remember
--
-- Remembers a command that is answered with 202, and forgets up to 100 that are a fortnight old. The edge,
-- for each such answer. Locks the row, and those it deletes. accepted_command_pkey and
-- accepted_command_accepted_at_idx.
--
-- Parameters: $1 command_id, $2 actor, $3 org_id, $4 now, $5 partition, $6 offset, $7 kept_from, $8 param_1 =
--   100

WITH forgotten AS
(DELETE FROM accepted_command WHERE ctid = any(ARRAY((SELECT ctid
FROM accepted_command
WHERE accepted_command.accepted_at < $7::TIMESTAMP WITH TIME ZONE AND accepted_command.command_id != $1::UUID
    ORDER BY accepted_command.accepted_at
LIMIT $8::INTEGER))))
INSERT INTO accepted_command (command_id, actor, org_id, accepted_at, partition, "offset") VALUES ($1::UUID,
    $2::VARCHAR, $3::UUID, $4::TIMESTAMP WITH TIME ZONE, $5::INTEGER, $6::BIGINT)
    ON CONFLICT (command_id) DO UPDATE SET accepted_at = excluded.accepted_at, partition = excluded.partition,
    "offset" = excluded."offset" WHERE accepted_command.actor = excluded.actor
    AND excluded."offset" IS NOT NULL AND excluded.accepted_at >= accepted_command.accepted_at;
