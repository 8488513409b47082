-- database/ping
--
-- Asks whether Postgres answers. Workers and edges, for `/readyz`. No lock.

SELECT 1;
