-- recorded/count_decided
--
-- Counts the outcomes of records at offsets that retention has taken. A rehearsal, in windows of 200,000
-- positions, where it asks for what may be gone. No lock. Reads the window by journal_pkey.
--
-- Parameters: $1 range_partition, $2 range_first, $3 range_end, $4 after, $5 through, $6 from_ms, $7 to_ms,
--   $8 org_ids, $9 command_ids

SELECT count(*) AS count_1
FROM journal JOIN unnest($1::INTEGER[], $2::BIGINT[], $3::BIGINT[]) AS range(partition, first, "end")
    ON journal.command_partition = range.partition
WHERE journal.position > $4::BIGINT AND journal.position <= $5::BIGINT
    AND journal.command_offset >= range.first AND journal.command_offset < range."end" AND ($6::BIGINT IS NULL
    OR journal.command_time_ms >= $6::BIGINT) AND ($7::BIGINT IS NULL OR journal.command_time_ms < $7::BIGINT)
    AND ($8::UUID[] IS NULL OR journal.org_id = any($8::UUID[])) AND ($9::UUID[] IS NULL
    OR journal.command_id = any($9::UUID[]));
