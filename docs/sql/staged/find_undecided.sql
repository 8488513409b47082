-- staged/find_undecided
--
-- Finds commands that have no outcome and are not parked. A rebuild or a recovery, for each step of commands.
-- journal_command_id_key and parked_command_id_idx.
--
-- Parameters: $1 ids

SELECT asked.id FROM unnest($1::UUID[]) AS asked (id) WHERE NOT EXISTS (SELECT FROM restoring_result AS each
    WHERE each.command_id = asked.id) AND NOT EXISTS (SELECT FROM restoring_event AS each
    WHERE each.command_id = asked.id) AND NOT EXISTS (SELECT FROM journal AS each
    WHERE each.command_id = asked.id) AND NOT EXISTS (SELECT FROM parked AS each
    WHERE each.command_id = asked.id);
