-- reference_progress/begin
--
-- Makes the rows of partitions that nobody has read. The worker, when it is given partitions. Locks the new
-- rows. reference_progress_pkey.
--
-- Parameters: $1 param_1 = 0, $2 given_topic, $3 given_partition, $4 given_topic_id

INSERT INTO reference_progress (topic, partition, topic_id, next_offset, confirmed_at) SELECT given.topic,
    given.partition, given.topic_id, $1::INTEGER AS anon_1, clock_timestamp() AS clock_timestamp_1
FROM unnest($2::TEXT[], $3::INTEGER[], $4::UUID[]) AS given(topic, partition, topic_id) ORDER BY given.topic,
    given.partition, given.topic_id ON CONFLICT DO NOTHING;
