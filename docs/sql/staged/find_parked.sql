-- staged/find_parked
--
-- Finds commands that are parked and have no final outcome. A rebuild or a recovery, once.
-- journal_command_id_key and parked_command_id_idx.
--
-- Parameters: $1 partitions, $2 committed

SELECT DISTINCT ON (each.command_id) each.partition, each."offset" FROM restoring_parked AS asked
    JOIN restoring_command AS each USING (command_id) JOIN unnest($1::BIGINT[],
    $2::BIGINT[]) AS read (partition, committed) ON read.partition = each.partition AND (read.committed < 0
    OR each."offset" < read.committed) WHERE NOT EXISTS (SELECT FROM journal
    WHERE journal.command_id = asked.command_id) AND NOT EXISTS (SELECT FROM parked
    WHERE parked.command_id = asked.command_id) ORDER BY each.command_id, each.partition, each."offset";
