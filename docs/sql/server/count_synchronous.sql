-- server/count_synchronous
--
-- Counts synchronous standbys. An operator's command, seldom. No lock. Reads pg_stat_replication.

SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication;
