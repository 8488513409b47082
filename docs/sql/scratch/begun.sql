-- scratch/begun
--
-- Rehearsals: begins the transaction, before a COPY that goes past SQLAlchemy.

SELECT 1;
