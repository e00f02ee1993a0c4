//! Finds work that ends the process: an image whose manifest exhausts the memory, for example.
//!
//! The store counts each start, and forgets it with the end of the work or with a clean stop. Work that was started twice without an
//! end is a suspect. Suspects run last and alone, so that a kill from outside hits only one of them. What has ended the process three
//! times alone is refused; otherwise it would do so for ever, and nothing else would get done.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::relay::Relay;
use crate::store::{IntakeWork, StoreError};

/// Refused after so many starts alone.
const MAX_ALONE: u32 = 3;

/// How long suspects wait for the others. Then no other work starts until the next suspect has run.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Suspects {
    /// When this intake began. The first start of later events was counted when they were stored.
    begun: Timestamp,
    /// Whether there may be suspects.
    remain: bool,
    runs_alone: bool,
    /// Counted starts without an end. Another try in this process is the same start.
    counted: HashSet<String>,
    /// Until when suspects wait for the others.
    patient_until: Timestamp,
}

impl Suspects {
    pub(super) fn begin(now: Timestamp) -> Self {
        Self { begun: now, remain: true, runs_alone: false, counted: HashSet::new(), patient_until: now + PATIENCE }
    }

    pub(super) fn remain(&self) -> bool {
        self.remain
    }

    /// When suspects stop waiting for others; `None`: there are none.
    pub(super) fn patience(&self) -> Option<Timestamp> {
        self.remain.then_some(self.patient_until)
    }

    /// Whether no other work may start at `now`, with so many tasks under way: a suspect runs alone, or has waited long enough.
    pub(super) fn keep_others_back(&mut self, now: Timestamp, tasks: usize) -> bool {
        self.runs_alone = self.runs_alone && tasks > 0;
        self.runs_alone || self.remain && now >= self.patient_until
    }

    /// Counts the starts of new work, before it starts.
    pub(super) async fn count(&mut self, relay: &Relay, new: &[IntakeWork]) -> Result<(), StoreError> {
        let is_new = |work: &IntakeWork| match work {
            IntakeWork::Event(event) => event.received_at >= self.begun && event.failures == 0,
            IntakeWork::Update(_) | IntakeWork::MissingFact(_) => false,
        };
        let is_counted = |work: &IntakeWork| is_new(work) || self.counted.contains(work.id());
        let uncounted: Vec<IntakeWork> = new.iter().filter(|work| !is_counted(work)).cloned().collect();
        relay.0.store.count_starts(&uncounted).await?;
        self.counted.extend(uncounted.iter().map(|work| work.id().to_owned()));
        Ok(())
    }

    /// Notes that work has ended. If its result could not be stored, it runs again as the same start, and it may be a suspect.
    pub(super) fn ended(&mut self, id: &str, stored: bool) {
        if stored {
            self.counted.remove(id);
        } else {
            self.remain = true;
        }
    }

    /// Returns the next suspect to run, after its start was counted. Refuses those that have ended the process too often.
    pub(super) async fn next(&mut self, relay: &Relay, now: Timestamp) -> Result<Option<IntakeWork>, StoreError> {
        while self.remain {
            let Some(suspect) = relay.0.store.suspect(now).await? else {
                self.remain = false;
                break;
            };
            let work = suspect.work;
            if suspect.alone < MAX_ALONE || self.counted.contains(work.id()) {
                tracing::warn!(id = work.id(), "the process ended twice while this was processed; it runs alone now");
                if self.counted.insert(work.id().to_owned()) {
                    relay.0.store.count_start_alone(&work).await?;
                }
                (self.runs_alone, self.patient_until) = (true, now + PATIENCE);
                return Ok(Some(work));
            }
            tracing::error!(id = work.id(), "refused: it ended the process three times; please report this");
            let reason = "it ended the process three times, alone: see the log of the process, and replay it by hand";
            relay.give_up(&work, reason.to_owned(), false).await?;
        }
        Ok(None)
    }
}
