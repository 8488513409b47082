-- restoring/join
--
-- Writes the journal of the next positions from events, results and commands. A rebuild or a recovery, for
-- each 5,000 positions. Locks the new rows.
--
-- Parameters: $1 after, $2 through, $3 no_digest = b'', $4 nowhere = -1

WITH event AS (
SELECT DISTINCT ON (position) * FROM restoring_event
WHERE position > $1::BIGINT AND position <= $2::BIGINT ORDER BY position
), result AS (
SELECT DISTINCT ON (position) * FROM restoring_result
WHERE position > $1::BIGINT AND position <= $2::BIGINT ORDER BY position
), known AS (
SELECT position, coalesce(event.command_id, result.command_id) AS command_id,
coalesce(event.org_id, result.org_id) AS org_id, coalesce(event.version, result.version) AS version,
event.event_type, coalesce(result.outcome, 'applied') AS outcome, coalesce(result.code, 200) AS code,
event.actor, event.changed, event.before, coalesce(event.after, result.organization) AS after, result.problem,
coalesce(event.traceparent, result.traceparent) AS traceparent,
coalesce(event.recorded_at, result.recorded_at) AS recorded_at, event.position IS NULL AS eventless
FROM event FULL JOIN result USING (position)
), inserted AS (
INSERT INTO journal (position, command_id, org_id, version, command_type, event_type, outcome, code, actor,
request_digest, command_partition, command_offset, changed, before, after, problem, traceparent, recorded_at,
command_time_ms)
SELECT known.position, known.command_id, known.org_id, known.version,
coalesce(command.command_type, CASE known.event_type
WHEN 'org.created' THEN 'org.create' WHEN 'org.updated' THEN 'org.update'
WHEN 'org.deleted' THEN 'org.delete' WHEN 'org.deactivated' THEN 'org.deactivate'
WHEN 'org.reactivated' THEN 'org.reactivate' WHEN 'org.restored' THEN 'org.restore'
WHEN 'org.erased' THEN 'org.erase' END, ''),
CASE WHEN known.outcome <> 'applied' THEN NULL ELSE coalesce(known.event_type, CASE command.command_type
WHEN 'org.create' THEN 'org.created' WHEN 'org.delete' THEN 'org.deleted'
WHEN 'org.deactivate' THEN 'org.deactivated' WHEN 'org.reactivate' THEN 'org.reactivated'
WHEN 'org.restore' THEN 'org.restored' ELSE
CASE WHEN known.version = 1 THEN 'org.created' WHEN known.after IS NULL THEN 'org.deleted'
ELSE 'org.updated' END END) END,
known.outcome, known.code,
CASE WHEN known.eventless AND known.code <> 401 THEN command.actor ELSE known.actor END,
coalesce(command.request_digest, $3::BYTEA), coalesce(command.partition, $4::BIGINT),
coalesce(command."offset", $4::BIGINT), known.changed, known.before, known.after, known.problem,
known.traceparent, known.recorded_at, command.time_ms
FROM known LEFT JOIN LATERAL (
SELECT * FROM restoring_command AS each
WHERE each.command_id = known.command_id
ORDER BY each.org_id IS NOT DISTINCT FROM known.org_id DESC, each.partition, each."offset" LIMIT 1
) AS command ON true
RETURNING event_type
)
SELECT count(event_type), count(*) FILTER (WHERE event_type IS NULL) FROM inserted;
