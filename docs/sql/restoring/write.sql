-- restoring/write
--
-- Writes rows of the journal, with what is kept of their commands, and notes whose they are. A rebuild or a
-- recovery, for each step of events and results. Locks the new rows.
--
-- Parameters: $1 no_digest = b'', $2 nowhere = -1

WITH inserted AS (
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
CASE WHEN known.event_type IS NULL AND known.code <> 401 THEN command.actor ELSE known.actor END,
coalesce(command.request_digest, $1::BYTEA), coalesce(command.partition, $2::BIGINT),
coalesce(command."offset", $2::BIGINT), known.changed, known.before, known.after, known.problem,
known.traceparent, known.recorded_at, command.time_ms
FROM restoring_outcome AS known LEFT JOIN LATERAL (
SELECT * FROM restoring_command AS each
WHERE each.command_id = known.command_id
ORDER BY each.org_id IS NOT DISTINCT FROM known.org_id DESC, each.partition, each."offset" LIMIT 1
) AS command ON true
ORDER BY known.position
ON CONFLICT (position) DO NOTHING
RETURNING org_id, version, event_type
), changed AS (
INSERT INTO restoring_changed
SELECT org_id, max(version), bool_or(event_type = 'org.erased') FROM inserted WHERE event_type IS NOT NULL
GROUP BY org_id ORDER BY org_id
ON CONFLICT (org_id) DO UPDATE SET version = greatest(restoring_changed.version, excluded.version),
erased = restoring_changed.erased OR excluded.erased
)
SELECT count(event_type), count(*) FILTER (WHERE event_type IS NULL) FROM inserted;
