-- console/drop_expired
--
-- Forgets sessions and links whose time is over. With console/add_ticket. Locks these rows.
-- console_ticket_expires_at_idx.

DELETE FROM console_ticket WHERE console_ticket.expires_at <= clock_timestamp();
