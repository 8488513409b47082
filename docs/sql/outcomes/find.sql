-- outcomes/find
--
-- Finds what became of one command: decided, parked, pending or expired. The edge, for `GET
-- /v1/commands/{id}` and for each change with an Idempotency-Key. No lock. journal_command_id_key,
-- parked_command_id_idx and accepted_command_pkey; of a command that is pending also lost_range_what_key.
--
-- Parameters: $1 command_id, $2 now_1 = 0:01:00, $3 param_1 = 1

SELECT found.rank, found.command_id, found.position, found.org_id, found.version, found.outcome, found.code,
    found.request_digest, found.command_partition, found.command_offset, found.event_type, found.after,
    found.problem, found.traceparent, found.recorded_at, found.command_time_ms, found.actor, found.changed
FROM (SELECT 0 AS rank, journal.command_id AS command_id, journal.position AS position,
    journal.org_id AS org_id, journal.version AS version, journal.outcome AS outcome, journal.code AS code,
    journal.request_digest AS request_digest, journal.command_partition AS command_partition,
    journal.command_offset AS command_offset, journal.event_type AS event_type, journal.after AS after,
    journal.problem AS problem, journal.traceparent AS traceparent, journal.recorded_at AS recorded_at,
    journal.command_time_ms AS command_time_ms, journal.actor AS actor, journal.changed AS changed
FROM journal
WHERE journal.command_id = $1::UUID UNION ALL SELECT 1 AS rank, parked.command_id AS command_id,
    NULL AS anon_1, parked.org_id AS org_id, NULL AS anon__1, 'parked', NULL AS anon__2,
    parked.request_digest AS request_digest, NULL AS anon__3, NULL AS anon__4, NULL AS anon__5,
    NULL AS anon__6, NULL AS anon__7, NULL AS anon__8, parked.recorded_at AS recorded_at, NULL AS anon__9,
    accepted_command.actor AS actor, NULL AS anon__10
FROM parked LEFT OUTER JOIN accepted_command ON accepted_command.command_id = parked.command_id
WHERE parked.command_id = $1::UUID AND parked.state = 'open' UNION ALL SELECT 2 AS rank,
    accepted_command.command_id AS command_id, NULL AS anon_1, accepted_command.org_id AS org_id,
    NULL AS anon__1, CASE WHEN (EXISTS (SELECT *
FROM lost_range
WHERE lost_range.partition = accepted_command.partition
    AND lost_range.from_offset <= accepted_command."offset" AND (lost_range.to_offset IS NULL
    OR lost_range.to_offset > accepted_command."offset")
    AND lost_range.noticed_at >= accepted_command.accepted_at AND (lost_range.why = 'expired'
    OR lost_range.noticed_at < now() - $2::INTERVAL))) THEN 'expired' ELSE 'pending' END AS anon_2,
    NULL AS anon__2, NULL AS anon__3, NULL AS anon__4, NULL AS anon__5, NULL AS anon__6, NULL AS anon__7,
    NULL AS anon__8, NULL AS anon__9, accepted_command.accepted_at AS accepted_at, NULL AS anon__10,
    accepted_command.actor AS actor, NULL AS anon__11
FROM accepted_command
WHERE accepted_command.command_id = $1::UUID) AS found ORDER BY found.rank, found.recorded_at
LIMIT $3::INTEGER;
