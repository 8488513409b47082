-- staged/drop
--
-- Drops them. A rebuild or a recovery, last.

DROP TABLE restoring_command, restoring_parked, restoring_lost, restoring_changed, restoring_organization;
