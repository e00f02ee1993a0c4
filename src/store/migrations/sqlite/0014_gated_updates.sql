-- The gate of an update that may wait for it: `closed` or `open`. NULL: it passes no gate, or passed it with the request.
ALTER TABLE updates ADD COLUMN gate TEXT;
