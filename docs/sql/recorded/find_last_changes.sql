-- recorded/find_last_changes
--
-- Finds what organizations were before a position each: their last change. A rehearsal, for each batch, for
-- those of which the commands' own rows don't say it. No lock. journal_org_id_version_key, backwards from
-- now.
--
-- Parameters: $1 asked_org_id, $2 asked_position, $3 param_1 = 1

SELECT asked.org_id, asked.position, last.version, last.event_type, last.before, last.after, last.recorded_at
FROM unnest($1::UUID[], $2::BIGINT[]) AS asked(org_id, position)
    JOIN LATERAL (SELECT journal.version AS version, journal.event_type AS event_type,
    journal.before AS before, journal.after AS after, journal.recorded_at AS recorded_at
FROM journal
WHERE journal.org_id = asked.org_id AND journal.event_type IS NOT NULL AND journal.position < asked.position
    ORDER BY journal.version DESC
LIMIT $3::INTEGER) AS last ON true;
