-- reference_progress/read_ages
--
-- Reads how long ago each partition was confirmed. The worker, when it starts and when it is given
-- partitions. No lock. Reads the whole table, a row for each partition.

SELECT reference_progress.topic, reference_progress.partition, EXTRACT(epoch
    FROM clock_timestamp() - reference_progress.confirmed_at) AS age_s
FROM reference_progress;
