//! Measures one event at a time, from the 202 to the moved branch.

use std::time::{Duration, Instant};

use crate::world::{Transport, Watch, World, service, tag};
use tagrelay_test_support::measure::{Work, median, milliseconds, quantile};

/// Measured pairs of an event and a bare push, and warm-up pairs, which open connections and learn the server's
/// capabilities.
const ROUNDS: usize = 25;
const WARM_UP: usize = 3;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

pub async fn run() {
    println!("From the 202 to the moved branch, beside a bare `git push` of one prepared commit to a twin of the");
    println!("repository. Services lie in team folders of at most 100, each with a Deployment in staging and in");
    println!("production. {ROUNDS} pairs, interleaved; times in milliseconds, medians unless they say p90.");
    println!("Both are timed until the branch has moved; `git push` ends a little later (`its end`).");
    for transport in Transport::ALL {
        println!("\nover {}", transport.name());
        println!(
            "{:>9} | {:>9} {:>8} {:>9} {:>7} {:>7} | {:>9} {:>8} {:>8} | {:>8} {:>7}",
            "services",
            "from 202",
            "p90",
            "prepare*",
            "push*",
            "CPU*",
            "git push",
            "p90",
            "its end",
            "to moved",
            "to end"
        );
        let mut all = Vec::new();
        for services in SIZES {
            let figures = measure(transport, services).await;
            figures.print(services);
            all.push(figures);
        }
        if let [first, .., last] = all.as_slice() {
            println!(
                "          from {} to {} services: event to branch x{:.2}, git push x{:.2}, their ratio x{:.2}",
                SIZES[0],
                SIZES[SIZES.len() - 1],
                median(&last.ours) / median(&first.ours),
                median(&last.theirs) / median(&first.theirs),
                last.ratio() / first.ratio(),
            );
        }
    }
    println!("* means of all rounds: what the program itself counts, and its processor time for an event\n");
}

#[derive(Default)]
struct Figures {
    ours: Vec<f64>,
    /// Time of bare pushes until the branch moved, and until Git ended.
    theirs: Vec<f64>,
    their_ends: Vec<f64>,
    prepare: f64,
    push: f64,
    /// Processor time of the program per event.
    busy: f64,
}

impl Figures {
    fn ratio(&self) -> f64 {
        median(&self.ours) / median(&self.theirs)
    }

    fn print(&self, services: usize) {
        println!(
            "{services:>9} | {:>9.1} {:>8.1} {:>9.1} {:>7.1} {:>7.1} | {:>9.1} {:>8.1} {:>8.1} | {:>8.2} {:>7.2}",
            median(&self.ours),
            quantile(&self.ours, 0.9),
            self.prepare,
            self.push,
            self.busy,
            median(&self.theirs),
            quantile(&self.theirs, 0.9),
            median(&self.their_ends),
            self.ratio(),
            median(&self.ours) / median(&self.their_ends),
        );
    }
}

async fn measure(transport: Transport, services: usize) -> Figures {
    let world = World::start(transport, services).await;
    // Different folders each time.
    let images: Vec<(usize, String)> =
        (0..ROUNDS + WARM_UP).map(|round| ((round * 7_919) % services, tag(round))).collect();
    world.push_images(images.iter().cloned()).await;
    let commits = world.twin.prepare(&images);
    let mut figures = Figures::default();
    let work = Work::of(world.fleet.pid());
    for (round, ((number, tag), commit)) in images.iter().zip(&commits).enumerate() {
        let ((ours, theirs), their_end) = if round % 2 == 0 {
            let ours = event(&world, *number, tag).await;
            let (theirs, end) = bare_push(&world, commit).await;
            ((ours, theirs), end)
        } else {
            let (theirs, end) = bare_push(&world, commit).await;
            ((event(&world, *number, tag).await, theirs), end)
        };
        if round >= WARM_UP {
            figures.ours.push(milliseconds(ours));
            figures.theirs.push(milliseconds(theirs));
            figures.their_ends.push(milliseconds(their_end));
        }
    }
    let (busy, _) = Work::of(world.fleet.pid()).since(&work);
    figures.busy = milliseconds(busy) / images.len() as f64;
    let metrics = world.metrics().await;
    let mean = |operation: &str| {
        let labels = format!("{{operation=\"{operation}\",outcome=\"ok\"}}");
        let figure = |name: &str| metrics[&format!("tagrelay_git_operation_seconds_{name}{labels}")];
        figure("sum") / figure("count") * 1e3
    };
    (figures.prepare, figures.push) = (mean("prepare"), mean("push"));
    figures
}

/// Delivers one event. Returns the time from the 202 until the branch moved.
async fn event(world: &World, number: usize, tag: &str) -> Duration {
    let watch = Watch::start(&world.fleet.upstream.path());
    let (status, answer) = world.fleet.deliver(&service(number), tag).await;
    let answered = Instant::now();
    assert_eq!(status, 202, "{answer}");
    let moved = watch.first().await;
    drop(watch);
    // Work after the push, such as recording it, must not disturb the next measurement.
    let event = world.fleet.settled(answer["events"][0]["id"].as_str().unwrap()).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    moved.saturating_duration_since(answered)
}

/// Pushes one commit to the twin. Returns the time until its branch moved, and until Git ended.
async fn bare_push(world: &World, commit: &str) -> (Duration, Duration) {
    let watch = Watch::start(&world.twin.repository);
    let begun = Instant::now();
    tokio::task::block_in_place(|| world.twin.push(commit));
    let ended = begun.elapsed();
    (watch.first().await.saturating_duration_since(begun), ended)
}
