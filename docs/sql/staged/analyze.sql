-- staged/analyze
--
-- Counts the commands that are kept. A rebuild or a recovery, before events.

ANALYZE restoring_command;
