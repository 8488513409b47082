-- staged/find_newer
--
-- Finds organizations of which no such version is known. A rebuild or a recovery, for each step of state.
-- organization_pkey.
--
-- Parameters: $1 ids, $2 versions

SELECT asked.id, max(asked.version) FROM unnest($1::UUID[], $2::BIGINT[]) AS asked (id,
    version) GROUP BY asked.id HAVING NOT EXISTS (SELECT FROM restoring_organization AS staged
    WHERE staged.id = asked.id AND staged.version >= max(asked.version)) AND NOT EXISTS (SELECT
    FROM organization AS stored WHERE stored.id = asked.id AND stored.version >= max(asked.version));
