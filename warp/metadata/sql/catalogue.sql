-- The catalogue's one row is locked by whoever changes any of it, and read first by whoever reads it.

-- name: lock_catalogue
select c.version from catalogue c where c.id = 1
lock rows of c

-- name: catalogue_version
select version from catalogue where id = 1

-- name: set_catalogue_version
update catalogue set version = $1 where id = 1
