-- console/find_session
--
-- Finds whose session it is, and whether they are staff. Each request of the operators' page. No lock.
-- console_ticket_pkey, staff_pkey.
--
-- Parameters: $1 digest

SELECT console_ticket.user_id, EXISTS (SELECT *
FROM staff
WHERE staff.user_id = console_ticket.user_id) AS anon_1
FROM console_ticket
WHERE console_ticket.digest = $1::BYTEA AND console_ticket.kind = 'session'
    AND console_ticket.expires_at > clock_timestamp();
