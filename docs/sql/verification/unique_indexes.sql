-- verification/unique_indexes
--
-- Reads which unique indexes of the journal are in force. A verification, once. No lock. The catalog.

SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = 'journal'::regclass AND indisunique AND indisvalid;
