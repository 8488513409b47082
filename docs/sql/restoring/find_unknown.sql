-- restoring/find_unknown
--
-- Which positions have no row. A rebuild or a recovery, for each step of results and state. journal_pkey.
--
-- Parameters: $1 positions

SELECT asked.position FROM unnest($1::BIGINT[]) AS asked (position) WHERE NOT EXISTS (SELECT FROM journal
    WHERE journal.position = asked.position);
