-- verification/emptied_at
--
-- Finds which of some rows were emptied. A verification where digests differ. No lock. journal_pkey.
--
-- Parameters: $1 positions

SELECT position FROM journal WHERE position = ANY($1) AND (request_digest = ''
    AND event_type IS DISTINCT FROM 'org.erased');
