-- server/show_settings
--
-- Reads settings of the server. An operator's command, seldom. No lock. Reads pg_settings.
--
-- Parameters: $1 names

SELECT name, setting || coalesce(unit, '') FROM pg_settings WHERE name = ANY(CAST($1 AS text[]));
