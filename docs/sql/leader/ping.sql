-- leader/ping
--
-- Asks whether the session is alive. The relay, when nothing was journaled for a poll interval. No lock.

SELECT 1;
