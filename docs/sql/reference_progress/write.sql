-- reference_progress/write
--
-- Notes how far partitions are applied. The worker, last in each batch of reference data. The rows are locked
-- already. reference_progress_pkey, or the whole table, a row for each partition.
--
-- Parameters: $1 given_topic, $2 given_partition, $3 given_topic_id, $4 given_next_offset, $5
--   given_leader_epoch

UPDATE reference_progress SET topic_id=given.topic_id, next_offset=given.next_offset,
    leader_epoch=given.leader_epoch FROM unnest($1::TEXT[], $2::INTEGER[], $3::UUID[], $4::BIGINT[],
    $5::INTEGER[]) AS given(topic, partition, topic_id, next_offset, leader_epoch)
    WHERE reference_progress.topic = given.topic AND reference_progress.partition = given.partition;
