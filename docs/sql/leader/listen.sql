-- leader/listen
--
-- Listens for the workers' NOTIFY. The relay, when it connects. No lock.

LISTEN orgs_journal;
