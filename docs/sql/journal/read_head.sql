-- journal/read_head
--
-- Reads the last position given out. The relay, after each chunk and for `/readyz`; operators. No lock. One
-- row.

SELECT journal_head.position
FROM journal_head;
