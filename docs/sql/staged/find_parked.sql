-- staged/find_parked
--
-- Finds commands that are parked and have no final outcome. A rebuild or a recovery, before commands.

SELECT command_id FROM restoring_parked AS asked WHERE NOT EXISTS (SELECT FROM restoring_result AS each
    WHERE each.command_id = asked.command_id) AND NOT EXISTS (SELECT FROM restoring_event AS each
    WHERE each.command_id = asked.command_id) AND NOT EXISTS (SELECT FROM journal AS each
    WHERE each.command_id = asked.command_id) AND NOT EXISTS (SELECT FROM parked AS each
    WHERE each.command_id = asked.command_id);
