-- losses/list
--
-- Lists the latest losses. An operator's command, seldom. No lock. lost_range_pkey.
--
-- Parameters: $1 limit

SELECT lost_range.topic, lost_range.topic_id, lost_range.partition, lost_range.from_offset,
    lost_range.to_offset, lost_range.why, lost_range.noticed_at
FROM lost_range ORDER BY lost_range.id DESC
LIMIT $1::INTEGER;
