-- leader/acquire
--
-- Tries to become the leader. Each relay that follows, once a second. An advisory lock of the session; from
-- then on Postgres ends the session when it is silent for too long.

SELECT CASE WHEN pg_try_advisory_lock($1) THEN set_config('idle_session_timeout', $2,
    false) IS NOT NULL ELSE false END;
