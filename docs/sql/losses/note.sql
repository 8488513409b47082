-- losses/note
--
-- Notes a range of lost offsets, once. The worker, when it finds one. Locks the new row. lost_range_what_key.
--
-- Parameters: $1 topic, $2 topic_id, $3 partition, $4 from_offset, $5 to_offset, $6 why, $7 noticed_at

INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at)
    VALUES ($1::VARCHAR, $2::UUID, $3::INTEGER, $4::BIGINT, $5::BIGINT, $6::VARCHAR,
    $7::TIMESTAMP WITH TIME ZONE) ON CONFLICT ON CONSTRAINT lost_range_what_key DO NOTHING;
