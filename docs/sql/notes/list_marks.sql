-- notes/list_marks
--
-- Reads the reasons of marks. A step of `orgs erase` or `orgs purge`; `orgs erase --status`. No lock. Reads
-- the whole table.

SELECT mark.name, mark.reason
FROM mark;
