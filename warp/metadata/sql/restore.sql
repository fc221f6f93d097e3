-- What puts a database right that is older than its bucket, or makes one out of the bucket alone. No agent is running.

-- name: forget_settings
delete from settings where name like $1
