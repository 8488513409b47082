-- migrate/assume
--
-- Takes the role of the process where it exists. Every process, when it looks at the version. No lock.
--
-- Parameters: $1 role

SELECT set_config('role', $1, true) WHERE to_regrole($1) IS NOT NULL;
