-- reference_progress/confirm
--
-- Notes when the tables held all that the partitions held. The worker, each minute. The rows are locked
-- already. reference_progress_pkey, or the whole table, a row for each partition.
--
-- Parameters: $1 given_topic, $2 given_partition, $3 given_ago_s

UPDATE reference_progress SET confirmed_at=(clock_timestamp() - given.ago_s * interval '1 second')
    FROM unnest($1::TEXT[], $2::INTEGER[], $3::DOUBLE PRECISION[]) AS given(topic, partition, ago_s)
    WHERE reference_progress.topic = given.topic AND reference_progress.partition = given.partition;
