-- restoring/clear_reference
--
-- Clears reference data and how far they are applied. A rebuild or a recovery, last. Locks the tables.

TRUNCATE membership, partnership, staff, reference_progress;
