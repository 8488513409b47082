-- reference_progress/read
--
-- Reads how far every partition is applied. The worker, while it waits for the first load. No lock. Reads the
-- whole table, a row for each partition.

SELECT reference_progress.topic, reference_progress.partition, reference_progress.topic_id,
    reference_progress.next_offset, reference_progress.confirmed_at, reference_progress.leader_epoch
FROM reference_progress;
