-- database/wait_for_reader
--
-- Lets a snapshot wait for whoever reads what it writes. `orgs export`, once. No lock.

SET LOCAL idle_in_transaction_session_timeout = '15min';
