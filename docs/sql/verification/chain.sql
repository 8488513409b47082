-- verification/chain
--
-- Digests how the changes of a part of the journal follow each other, by bucket. A verification where digests
-- differ, for each part. No lock. journal_pkey.
--
-- Parameters: $1 after, $2 through

SELECT ((get_byte(uuid_send(coalesce(org_id, command_id)), 14) & 3) << 8 | get_byte(uuid_send(coalesce(org_id,
    command_id)), 15)) AS bucket, count(*) FILTER (WHERE event_type IS NOT NULL AND version = 1) AS firsts,
    bit_xor(hashtextextended(concat(org_id, ' ', version, ' ', octet_length(after), split_part(after,
    '"primary_address":', 1)), 1) # CASE WHEN version > 1 THEN hashtextextended(concat(org_id, ' ',
    version - 1, ' ', octet_length(before), split_part(before, '"primary_address":', 1)),
    1) ELSE 0 END) FILTER (WHERE event_type IS NOT NULL) AS chain
FROM journal WHERE position > $1 AND position <= $2 AND org_id IS NOT NULL GROUP BY 1;
