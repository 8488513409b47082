-- scratch/set_read_only
--
-- Makes every later transaction of the session read-only: only temporary tables can be written. A rehearsal,
-- once the tables are made.

SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY;
