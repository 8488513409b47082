-- migrate/show_encoding
--
-- Reads the encoding of the database. `orgs migrate`.

SHOW server_encoding;
