-- staged/judge
--
-- Finds commands that have no outcome and are not parked: where workers go on, and whose outcome is gone. A
-- rebuild or a recovery, for each 20,000 commands. journal_command_id_key and parked_command_id_idx.
--
-- Parameters: $1 after_id, $2 limit, $3 decided_ms, $4 complete, $5 partitions, $6 committed

WITH page AS (
SELECT * FROM restoring_command WHERE $1::UUID IS NULL OR command_id > $1::UUID
ORDER BY command_id FETCH FIRST ($2::BIGINT) ROWS WITH TIES
), undecided AS (
SELECT page.*, page.time_ms > $3::BIGINT OR page.time_ms >= CASE WHEN page.org_id IS NULL THEN (
SELECT max(since) FROM unnest($4::BIGINT[]) AS since
) ELSE read.complete END AS again
FROM page JOIN unnest($5::BIGINT[], $6::BIGINT[], $4::BIGINT[]) AS read (partition, committed, complete)
ON read.partition = page.partition AND (read.committed < 0 OR page."offset" < read.committed)
WHERE NOT EXISTS (SELECT FROM journal WHERE journal.command_id = page.command_id)
AND NOT EXISTS (SELECT FROM parked WHERE parked.command_id = page.command_id)
), lost AS (
INSERT INTO restoring_lost
SELECT DISTINCT ON (command_id) command_id, org_id, command_type, actor, request_digest, partition, "offset",
time_ms, traceparent
FROM undecided WHERE NOT again ORDER BY command_id, partition, "offset"
ON CONFLICT DO NOTHING
)
SELECT
(SELECT command_id FROM page ORDER BY command_id DESC LIMIT 1) AS last_id,
(SELECT json_object_agg(partition, first) FROM (
SELECT partition, min("offset") AS first FROM undecided WHERE again GROUP BY partition
) AS each) AS back_to;
