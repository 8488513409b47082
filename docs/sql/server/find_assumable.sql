-- server/find_assumable
--
-- Finds the roles that our login may assume. An operator's command, seldom. No lock. Reads the catalogue.
--
-- Parameters: $1 roles

SELECT r.role FROM unnest(CAST($1 AS text[])) r(role)
WHERE to_regrole(r.role) IS NOT NULL AND pg_has_role(session_user, r.role, 'SET');
