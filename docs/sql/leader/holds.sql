-- leader/holds
--
-- Whether this session is still the leader. The leading relay, before each transaction. No lock. Reads
-- pg_locks.

SELECT EXISTS (
SELECT FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 1
);
