-- journal/read_gaps
--
-- Reads the positions that operators gave up. The relay, where it meets a hole; `orgs verify`. No lock. Some
-- rows at most.

SELECT journal_gap.first_position, journal_gap.last_position
FROM journal_gap;
