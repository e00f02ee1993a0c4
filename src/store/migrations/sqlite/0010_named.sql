-- What the manifests named that an application is made of when it was looked at last, as a digest: with something else its
-- time of being healthy begins anew, whoever has written it.
ALTER TABLE application_health ADD COLUMN named TEXT;
