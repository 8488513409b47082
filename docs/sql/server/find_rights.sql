-- server/find_rights
--
-- Finds which roles may do what to which tables. An operator's command, seldom. No lock. Reads the catalogue.
--
-- Parameters: $1 roles, $2 tables, $3 privileges

SELECT r.role, t."table", p.privilege
FROM unnest(CAST($1 AS text[])) r(role), unnest(CAST($2 AS text[])) t("table"),
unnest(CAST($3 AS text[])) p(privilege)
WHERE to_regrole(r.role) IS NOT NULL AND to_regclass(t."table") IS NOT NULL
AND has_table_privilege(r.role, t."table", p.privilege);
