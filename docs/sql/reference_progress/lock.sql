-- reference_progress/lock
--
-- Locks how far partitions are applied, and reads it. The worker, first in each batch of reference data. Row
-- locks (FOR UPDATE) in order of topic and partition until the commit: whoever comes with older records
-- waits, then sees that they are old. reference_progress_pkey, or the whole table, a row for each partition.
--
-- Parameters: $1 given_topic, $2 given_partition

SELECT reference_progress.topic, reference_progress.partition, reference_progress.topic_id,
    reference_progress.next_offset, reference_progress.confirmed_at, reference_progress.leader_epoch
FROM reference_progress JOIN unnest($1::TEXT[], $2::INTEGER[]) AS given(topic, partition)
    ON reference_progress.topic = given.topic AND reference_progress.partition = given.partition
    ORDER BY reference_progress.topic, reference_progress.partition FOR UPDATE OF reference_progress;
