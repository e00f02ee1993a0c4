-- What an environment's health is asked for: what is still being rolled out in it, and what ran out of time.
CREATE INDEX follow_ups_open_in ON follow_ups (environment, update_id) WHERE ended_at IS NULL;
CREATE INDEX follow_ups_timed_out ON follow_ups (environment, update_id) WHERE state = 'timed_out';
