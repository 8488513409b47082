-- console/end_session
--
-- Ends a session. A sign-out. Locks the row. console_ticket_pkey.
--
-- Parameters: $1 digest

DELETE FROM console_ticket WHERE console_ticket.digest = $1::BYTEA;
