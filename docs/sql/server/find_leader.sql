-- server/find_leader
--
-- Finds the session that leads. An operator's command, seldom. No lock. Reads pg_locks and pg_stat_activity.
--
-- Parameters: $1 high, $2 low

SELECT l.pid, host(a.client_addr), a.backend_start
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid = CAST($1 AS bigint)::oid AND l.objid = CAST($2 AS bigint)::oid;
