-- reference_progress/write
--
-- Notes how far partitions are applied. The worker, last in each batch of reference data. The rows are locked
-- already. reference_progress_pkey, or the whole table, a row for each partition.
--
-- Parameters: $1 given_topic, $2 given_partition, $3 given_topic_id, $4 given_next_offset

UPDATE reference_progress SET topic_id=given.topic_id, next_offset=given.next_offset FROM unnest($1::TEXT[],
    $2::INTEGER[], $3::UUID[], $4::BIGINT[]) AS given(topic, partition, topic_id, next_offset)
    WHERE reference_progress.topic = given.topic AND reference_progress.partition = given.partition;
