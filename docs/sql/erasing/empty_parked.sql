-- erasing/empty_parked
--
-- Empties their parked records, all of which are decided. A step of `orgs erase` or `orgs purge`. Locks these
-- rows. Reads the whole table.
--
-- Parameters: $1 key, $2 value, $3 headers = [], $4 request_digest, $5 detail = , $6 actor, $7
--   authenticated_by, $8 value_bytes, $9 value_sha256, $10 ids, $11 keys

UPDATE parked SET key=$1::BYTEA, value=$2::BYTEA, headers=$3::VARCHAR, request_digest=$4::BYTEA,
    detail=$5::VARCHAR, actor=$6::VARCHAR, authenticated_by=$7::VARCHAR, value_bytes=$8::INTEGER,
    value_sha256=$9::VARCHAR WHERE parked.org_id = any($10::UUID[]) OR parked.key = any($11::BYTEA[]);
