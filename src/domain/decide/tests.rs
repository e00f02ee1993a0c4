use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::domain::{AfterLanding, Block, BlockKind, BuildTime, Descent, after_landing};
use crate::policy::{RepositoryPattern, TagRule, Verification};
use crate::telemetry::TraceContext;
use tagrelay_image::Tag;

/// A linear history, in which a commit descends from all commits with lower numbers.
///
/// The id of commit `n` is the four hex digits of `n`, ten times.
struct Linear {
    missing: bool,
}

fn number(sha: &str) -> u32 {
    u32::from_str_radix(&sha[..4], 16).unwrap()
}

impl Facts for Linear {
    fn descent(&self, source: usize, repository: &Repository, new: &str, old: &str) -> Fact<Descent> {
        if self.missing {
            let (repository, new, old) = (repository.clone(), new.to_owned(), old.to_owned());
            return Fact::Missing(Missing::Descent { source, repository, new, old });
        }
        Fact::Known(match number(new).cmp(&number(old)) {
            Ordering::Greater => Descent::Descendant,
            Ordering::Less => Descent::Ancestor,
            Ordering::Equal => Descent::Same,
        })
    }

    fn build_time(&self, _: &Repository, _: &Digest) -> Fact<BuildTime> {
        Fact::Known(BuildTime::NotStated)
    }

    fn tag_digest(&self, _: &Repository, _: &Tag) -> Fact<Option<Digest>> {
        Fact::Known(None)
    }

    fn announced_before(&self, _: &str, _: &Repository, _: &Digest, _: &Tag) -> Fact<bool> {
        Fact::Known(false)
    }
}

fn tag(number: u32) -> String {
    format!("{number:04x}").repeat(10)
}

fn version(number: u32) -> Version {
    Version::tagged(tag(number).parse().unwrap(), None)
}

fn number_of(version: &Version) -> u32 {
    number_in(version.tag().unwrap())
}

fn number_in(tag: &Tag) -> u32 {
    number(tag.as_str())
}

/// Created only once, because a pattern is compiled for it.
static RULE: LazyLock<ImageRule> = LazyLock::new(|| ImageRule {
    pattern: "docker.io/uyou/*".parse::<RepositoryPattern>().unwrap(),
    tag: TagRule::commit_sha("", "", 40).unwrap(),
    verify: Verification::Exists,
    source: Some(0),
    allow_older: false,
    allow_untracked: false,
});

fn repository() -> Repository {
    "uyou/user-service".parse().unwrap()
}

fn update(arrival: u32, cause: Cause, wanted: u32, expected: Option<&[u32]>) -> Update {
    Update {
        id: format!("u{arrival:04}"),
        environment: "staging".to_owned(),
        repository: repository(),
        version: version(wanted),
        cause,
        cause_id: format!("c{arrival:04}"),
        actor: "hub".to_owned(),
        state: UpdateState::Pending,
        reason: None,
        failures: 0,
        next_attempt_at: None,
        pushed_at: None,
        received_at: Timestamp::from_second(i64::from(arrival)).unwrap(),
        released_at: None,
        commit: None,
        old: None,
        changes: Vec::new(),
        finished_at: None,
        decided_by: None,
        decided_because: None,
        expected: expected.map(|expected| expected.iter().map(|number| version(*number)).collect()),
        trace: TraceContext::random(),
        override_reason: None,
        gate: None,
    }
}

fn decisions(updates: &[Update], running: Vec<Running>, blocks: &Blocks, facts: &Linear) -> Vec<Decision> {
    let repository = repository();
    let place = Place {
        environment: "staging",
        repository: &repository,
        rule: Some(&RULE),
        running,
        candidates: updates.iter().map(|update| Candidate { update, unconfirmed: false }).collect(),
        blocks,
        now: Timestamp::from_second(1000).unwrap(),
        catch_up: None,
    };
    decide(&place, facts).into_iter().map(|decided| decided.decision).collect()
}

fn by_hand(number: u32) -> Vec<Running> {
    vec![Running { version: version(number), landed: None }]
}

fn landed(number: u32, cause: Cause, arrival: u32) -> Vec<Running> {
    let landed = Landed {
        cause,
        cause_id: format!("c{arrival:04}"),
        digest: None,
        finished_at: Some(Timestamp::from_second(i64::from(arrival)).unwrap()),
    };
    vec![Running { version: version(number), landed: Some(landed) }]
}

const KNOWN: Linear = Linear { missing: false };

fn word(decision: &Decision) -> String {
    match decision {
        Decision::Write => "write".to_owned(),
        Decision::Wait(_) | Decision::Ask(_) => {
            let causes: Vec<&str> = decision.wait_causes().iter().map(|cause| cause.as_str()).collect();
            format!("wait: {}", causes.join(" "))
        }
        Decision::End { state, .. } => state.to_string(),
        Decision::Keep => "keep".to_owned(),
    }
}

fn words(decisions: &[Decision]) -> Vec<String> {
    decisions.iter().map(word).collect()
}

#[test]
fn newest_of_several_events_is_written_in_any_order_of_arrival() {
    let none = Blocks::default();
    let updates = [update(1, Cause::Push, 5, None), update(2, Cause::Push, 7, None), update(3, Cause::Push, 6, None)];
    let decided = decisions(&updates, by_hand(4), &none, &KNOWN);
    assert_eq!(words(&decided), ["superseded", "write", "refused"]);
    let [
        Decision::End { reason: first, ground: by_first, .. },
        _,
        Decision::End { reason: third, ground: by_third, .. },
    ] = &decided[..]
    else {
        panic!("{decided:?}")
    };
    assert_eq!([by_first, by_third], [&Ground::Rival("u0002".to_owned()), &Ground::Rival("u0002".to_owned())]);
    assert_eq!(first, "c0002 is newer and is written instead");
    assert_eq!(third, "older: 0007000, which was taken for staging, is newer by ancestry in the source repository");
}

#[test]
fn event_that_is_older_than_what_runs_is_refused_by_the_tip() {
    let decided = decisions(&[update(1, Cause::Push, 3, None)], by_hand(4), &Blocks::default(), &KNOWN);
    assert!(
        matches!(&decided[0], Decision::End { state: UpdateState::Refused, ground: Ground::Tip, .. }),
        "{decided:?}"
    );
}

#[test]
fn event_that_waited_while_a_newer_one_landed_is_superseded() {
    let waited = update(1, Cause::Push, 3, None);
    let decided = decisions(std::slice::from_ref(&waited), landed(4, Cause::Push, 2), &Blocks::default(), &KNOWN);
    let Decision::End { state, reason, ground } = &decided[0] else { panic!("{decided:?}") };
    assert_eq!((state, ground), (&UpdateState::Superseded, &Ground::Tip));
    assert_eq!(reason, "older: 0004000 was written to staging later");
    // A build that arrives after the newer version landed is refused.
    let late = Update { cause_id: "c0003".to_owned(), ..waited };
    let decided = decisions(&[late], landed(4, Cause::Push, 2), &Blocks::default(), &KNOWN);
    assert_eq!(words(&decided), ["refused"]);
}

#[test]
fn missing_fact_delays_only_its_own_candidate() {
    let updates = [update(1, Cause::Push, 5, None), update(2, Cause::Promotion, 3, Some(&[4]))];
    let decided = decisions(&updates, by_hand(4), &Blocks::default(), &Linear { missing: true });
    assert_eq!(words(&decided), ["wait: missing_fact", "write"]);
}

#[test]
fn event_announced_before_a_rollback_does_not_come_back() {
    let decided =
        decisions(&[update(1, Cause::Push, 9, None)], landed(3, Cause::Rollback, 2), &Blocks::default(), &KNOWN);
    assert_eq!(words(&decided), ["refused"]);
    let later =
        decisions(&[update(3, Cause::Push, 9, None)], landed(3, Cause::Rollback, 2), &Blocks::default(), &KNOWN);
    assert_eq!(words(&later), ["write"]);
}

#[test]
fn later_request_wins_over_earlier_requests_and_events() {
    let updates = [
        update(1, Cause::Promotion, 5, Some(&[4])),
        update(2, Cause::Push, 6, None),
        update(3, Cause::Rollback, 2, Some(&[4])),
    ];
    let decided = decisions(&updates, by_hand(4), &Blocks::default(), &KNOWN);
    assert_eq!(words(&decided), ["superseded", "superseded", "write"]);
}

#[test]
fn promotion_ends_if_the_environment_was_changed_by_hand_or_by_a_later_update() {
    let promotion = [update(2, Cause::Promotion, 5, Some(&[4]))];
    let none = Blocks::default();
    assert_eq!(words(&decisions(&promotion, by_hand(4), &none, &KNOWN)), ["write"]);
    assert_eq!(words(&decisions(&promotion, by_hand(7), &none, &KNOWN)), ["superseded"]);
    assert_eq!(words(&decisions(&promotion, landed(7, Cause::Push, 3), &none, &KNOWN)), ["superseded"]);
    // An update of ours that landed after the promotion was requested is not foreign.
    let mut running = landed(7, Cause::Push, 1);
    running[0].landed.as_mut().unwrap().finished_at = Some(Timestamp::from_second(2).unwrap());
    assert_eq!(words(&decisions(&promotion, running, &none, &KNOWN)), ["write"]);
}

#[test]
fn unconfirmed_update_is_written_again_but_never_ended() {
    let (repository, blocks) = (repository(), Blocks::default());
    let old = update(1, Cause::Push, 5, None);
    let new = update(2, Cause::Push, 6, None);
    let place = |candidates| Place {
        environment: "staging",
        repository: &repository,
        rule: Some(&RULE),
        running: by_hand(4),
        candidates,
        blocks: &blocks,
        now: Timestamp::from_second(1000).unwrap(),
        catch_up: None,
    };
    let alone = decide(&place(vec![Candidate { update: &old, unconfirmed: true }]), &KNOWN);
    assert_eq!(alone[0].decision, Decision::Write);
    let both =
        place(vec![Candidate { update: &old, unconfirmed: true }, Candidate { update: &new, unconfirmed: false }]);
    let both: Vec<Decision> = decide(&both, &KNOWN).into_iter().map(|decided| decided.decision).collect();
    assert_eq!(words(&both), ["keep", "write"]);
}

/// A step of the property test.
#[derive(Debug, Clone)]
enum Step {
    /// A push event for this commit.
    Event(u32),
    /// A commit of another writer names this version.
    Foreign(u32),
    Promote(u32),
    RollBack(u32),
    Freeze,
    Thaw,
    /// The intake has (or lacks) the facts.
    Facts(bool),
    /// The remote accepts (or rejects) pushes.
    Rejects(bool),
    /// The pause of the rejected updates is over.
    Retry,
    /// A round of the branch writer.
    Round,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u32..40).prop_map(Step::Event),
        1 => (1u32..40).prop_map(Step::Foreign),
        1 => (1u32..40).prop_map(Step::Promote),
        1 => (1u32..40).prop_map(Step::RollBack),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
        1 => any::<bool>().prop_map(Step::Facts),
        2 => any::<bool>().prop_map(Step::Rejects),
        1 => Just(Step::Retry),
        4 => Just(Step::Round),
    ]
}

/// A model of store and branch around the decision.
struct Model {
    arrivals: u32,
    /// Pending and waiting updates, each with its wait causes.
    open: Vec<(Update, Vec<WaitCause>)>,
    running: Running,
    blocks: Blocks,
    facts: Linear,
    rejects: bool,
    /// The version and arrival of the last floor.
    ///
    /// A foreign commit sets the floor, and a promotion or rollback that was written.
    floor: (u32, u32),
}

impl Model {
    fn new() -> Self {
        Self {
            arrivals: 0,
            open: Vec::new(),
            running: Running { version: version(20), landed: None },
            blocks: Blocks { rows: Vec::new(), calendar: Arc::default() },
            facts: Linear { missing: false },
            rejects: false,
            floor: (20, 0),
        }
    }

    fn arrive(&mut self, cause: Cause, wanted: u32) {
        self.arrivals += 1;
        let running = [number_of(&self.running.version)];
        let expected = (!cause.is_event()).then_some(&running[..]);
        self.open.push((update(self.arrivals, cause, wanted, expected), Vec::new()));
    }

    /// Decides about the pending updates, as the branch writer does.
    fn round(&mut self) {
        let (pending, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|(_, causes)| causes.is_empty());
        self.open = waiting;
        let pending: Vec<Update> = pending.into_iter().map(|(update, _)| update).collect();
        let decided = decisions(&pending, vec![self.running.clone()], &self.blocks, &self.facts);
        let written = decided.iter().position(|decision| *decision == Decision::Write);
        assert!(decided.iter().filter(|decision| **decision == Decision::Write).count() <= 1, "{decided:?}");
        let lands = written.is_some() && !self.rejects;
        for (update, decision) in pending.iter().zip(&decided) {
            match decision {
                Decision::Write if lands => {}
                Decision::Write => self.open.push((update.clone(), vec![WaitCause::RejectedPush])),
                Decision::Wait(_) | Decision::Ask(_) => self.open.push((update.clone(), decision.wait_causes())),
                Decision::Keep => self.open.push((update.clone(), Vec::new())),
                Decision::End { ground: Ground::Rival(by), .. } => {
                    assert_eq!(written.map(|index| &pending[index].id), Some(by), "it is outdone by what is written");
                    if !lands {
                        self.open.push((update.clone(), Vec::new()));
                    }
                }
                Decision::End { .. } => {}
            }
        }
        if let (true, Some(index)) = (lands, written) {
            self.land(pending[index].clone());
        }
    }

    fn land(&mut self, mut update: Update) {
        let arrival: u32 = update.cause_id[1..].parse().unwrap();
        let (before, wanted) = (number_of(&self.running.version), number_of(&update.version));
        if update.cause.is_event() {
            assert!(wanted >= before, "automation went from {before} back to {wanted}");
            assert!(self.floor.1 == 0 || arrival > self.floor.1 || self.floor.0 <= wanted);
        } else {
            self.floor = (wanted, arrival);
        }
        update.state = UpdateState::Committed;
        update.finished_at = Some(Timestamp::from_second(2000 + i64::from(self.arrivals)).unwrap());
        self.running = Running { version: update.version.clone(), landed: Some(Landed::by(&update)) };
        let earlier = |other: &Update| other.cause_id < update.cause_id;
        let open = std::mem::take(&mut self.open);
        self.open = open
            .into_iter()
            .filter_map(|(other, causes)| {
                if !earlier(&other) {
                    return Some((other, causes));
                }
                let state = if causes.is_empty() { UpdateState::Pending } else { UpdateState::Waiting };
                let blocked = causes.iter().any(|cause| cause.is_block());
                match after_landing((update.cause, update.state), (other.cause, state), blocked) {
                    AfterLanding::End => None,
                    AfterLanding::DecideAgain => Some((other, Vec::new())),
                    AfterLanding::Keep => Some((other, causes)),
                }
            })
            .collect();
    }

    /// Ends a wait cause of all updates.
    fn end(&mut self, ended: impl Fn(WaitCause) -> bool) {
        self.open.iter_mut().for_each(|(_, causes)| causes.retain(|cause| !ended(*cause)));
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Event(commit) => self.arrive(Cause::Push, *commit),
            Step::Foreign(commit) => {
                self.running = Running { version: version(*commit), landed: None };
                self.floor = (*commit, self.arrivals);
                // The branch writer tries rejected updates again when others moved the branch.
                self.end(|cause| cause == WaitCause::RejectedPush);
            }
            Step::Promote(commit) => self.arrive(Cause::Promotion, *commit),
            Step::RollBack(commit) => self.arrive(Cause::Rollback, *commit),
            Step::Freeze => self.blocks.rows = vec![freeze()],
            Step::Thaw => {
                self.blocks.rows.clear();
                self.end(WaitCause::is_block);
            }
            Step::Facts(known) => {
                self.facts.missing = !known;
                if *known {
                    self.end(|cause| cause == WaitCause::MissingFact);
                }
            }
            Step::Rejects(rejects) => self.rejects = *rejects,
            Step::Retry => self.end(|cause| cause == WaitCause::RejectedPush),
            Step::Round => self.round(),
        }
    }

    /// Ends every wait cause and lets the branch writer finish.
    fn settle(&mut self) {
        for step in [Step::Thaw, Step::Facts(true), Step::Rejects(false), Step::Retry] {
            self.run(&step);
        }
        for _ in 0..self.open.len() + 1 {
            self.round();
        }
        assert!(self.open.is_empty(), "{} candidates were never decided", self.open.len());
    }
}

fn freeze() -> Block {
    Block {
        id: "f".to_owned(),
        kind: BlockKind::Freeze,
        environment: "staging".to_owned(),
        repository: None,
        reason: None,
        actor: "ops".to_owned(),
        request_id: None,
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: None,
    }
}

proptest! {
    /// The newest allowed version ends up on the branch.
    ///
    /// For every order of events, freezes, missing facts, rejected pushes and foreign commits. Allowed are the last foreign commit,
    /// the updates that were open at that time, and later versions.
    #[test]
    fn newest_allowed_version_ends_up_on_the_branch(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        let mut expected = 20;
        for step in &steps {
            if matches!(step, Step::Promote(_) | Step::RollBack(_)) {
                continue;
            }
            if let Step::Foreign(commit) = step {
                // Every waiting update is compared with the foreign commit, and lands if it is newer.
                let newest = model.open.iter().map(|(update, _)| number_of(&update.version)).max().unwrap_or(0);
                expected = newest.max(*commit);
            }
            if let Step::Event(commit) = step {
                expected = expected.max(*commit);
            }
            model.run(step);
        }
        model.settle();
        prop_assert_eq!(number_of(&model.running.version), expected);
    }

    /// Requests and events in any order are all decided, and the last request wins.
    ///
    /// At most one candidate per round is written, no event goes back behind a running version, and the last request is written
    /// unless a later version was.
    #[test]
    fn every_candidate_ends_and_the_last_request_wins(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        let last = steps.iter().rposition(|step| matches!(step, Step::Promote(_) | Step::RollBack(_)));
        let undisturbed = last.is_some_and(|last| {
            steps[last..].iter().all(|step| !matches!(step, Step::Foreign(_) | Step::Event(_)))
        });
        model.settle();
        if let (true, Some(last)) = (undisturbed, last)
            && let Step::RollBack(commit) = &steps[last]
        {
            prop_assert_eq!(number_of(&model.running.version), *commit);
        }
    }
}
