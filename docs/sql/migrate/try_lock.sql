-- migrate/try_lock
--
-- Tries to be the only migration. `orgs migrate`, five times a second until it is. An advisory lock of the
-- session.
--
-- Parameters: $1 key

SELECT pg_try_advisory_lock($1);
