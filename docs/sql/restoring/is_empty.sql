-- restoring/is_empty
--
-- Whether nothing was ever decided or parked. The plan of `orgs rebuild`. No lock.

SELECT NOT (EXISTS (SELECT FROM journal) OR EXISTS (SELECT FROM organization) OR EXISTS (SELECT FROM parked)
    OR EXISTS (SELECT FROM journal_gap));
