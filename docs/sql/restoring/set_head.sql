-- restoring/set_head
--
-- Gives the journal its head again. A rebuild or a recovery, last. One row.
--
-- Parameters: $1 through

INSERT INTO journal_head (id, position) VALUES (1, $1::BIGINT);
