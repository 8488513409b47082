-- restoring/fill
--
-- Gives commands whose outcome is gone a position about which nothing is known. A rebuild or a recovery, for
-- each 50,000 positions. journal_pkey.
--
-- Parameters: $1 after, $2 through, $3 problem

WITH hole AS (
SELECT each.position, row_number() OVER (ORDER BY each.position DESC) AS number
FROM generate_series($1::BIGINT + 1, $2::BIGINT) AS each (position)
WHERE NOT EXISTS (SELECT FROM journal WHERE journal.position = each.position)
), lost AS (
SELECT each.*, row_number() OVER (ORDER BY time_ms DESC, partition, "offset" DESC) AS number
FROM restoring_lost AS each
ORDER BY time_ms DESC, partition, "offset" DESC LIMIT (SELECT count(*) FROM hole)
), filled AS (
DELETE FROM restoring_lost USING lost WHERE restoring_lost.command_id = lost.command_id
)
INSERT INTO journal (position, command_id, org_id, command_type, outcome, code, actor, request_digest,
command_partition, command_offset, problem, traceparent, recorded_at, command_time_ms)
SELECT hole.position, lost.command_id, lost.org_id, lost.command_type, 'rejected', 500, lost.actor,
lost.request_digest, lost.partition, lost."offset", $3::VARCHAR, lost.traceparent,
to_timestamp(lost.time_ms / 1000.0), lost.time_ms
FROM hole JOIN lost USING (number);
