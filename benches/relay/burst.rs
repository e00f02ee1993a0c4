//! Measures 1,000 events for 1,000 services at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::world::{Order, Transport, Watch, World, service, tag};
use tagrelay_test_support::measure::{Work, median};
use tagrelay_test_support::wire::{Connection, webhook};

const SERVICES: usize = 1_000;
const ROUNDS: usize = 3;

/// Concurrent senders.
const CONNECTIONS: usize = 32;

/// Bare pushes of one commit each, for comparison.
const PUSHES: usize = 10;

pub async fn run() {
    println!(
        "{SERVICES} events for {SERVICES} services at once, over {CONNECTIONS} connections, from the first 202 until all are"
    );
    println!(
        "on the branch; beside one bare `git push` for each, one after another (the median of {PUSHES}, times {SERVICES})."
    );
    println!("`CPU` is the processor time of the program itself.");
    for (transport, order) in Transport::ALL.into_iter().flat_map(|way| Order::ALL.map(|order| (way, order))) {
        println!("\nover {}, {}", transport.name(), order.name());
        let world = World::start_ordered(transport, SERVICES, &[], order).await;
        let commits = world.twin.prepare(&(0..PUSHES).map(|number| (number, tag(0))).collect::<Vec<_>>());
        let mut one_by_one = Vec::new();
        for commit in &commits {
            let begun = Instant::now();
            tokio::task::block_in_place(|| world.twin.push(commit));
            one_by_one.push(begun.elapsed().as_secs_f64());
        }
        let one_by_one = median(&one_by_one) * SERVICES as f64;
        println!(
            "{:>6} {:>13} {:>13} {:>7} {:>8} {:>10} {:>14} {:>9}",
            "round", "all answered", "all on branch", "pushes", "commits", "updates/s", "of one by one", "CPU"
        );
        let mut seconds = Vec::new();
        for round in 1..=ROUNDS {
            seconds.push(burst(&world, order.tag(round), round, one_by_one).await);
        }
        println!(
            "median {:.2} s, {:.0} updates/s; one by one {one_by_one:.1} s",
            median(&seconds),
            SERVICES as f64 / median(&seconds)
        );
    }
    println!();
}

async fn burst(world: &World, tag: String, round: usize, one_by_one: f64) -> f64 {
    world.push_images((0..SERVICES).map(|number| (number, tag.clone()))).await;
    let commits_before = commits(world);
    let before = committed(world).await;
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(
        (0..SERVICES).map(|number| webhook(&format!("{}:{tag}", world.fleet.repository(&service(number))))).collect(),
    );
    let work = Work::of(world.fleet.pid());
    let watch = Watch::start(&world.fleet.upstream.path());
    let begun = send_all(world, requests).await;
    let answered = begun.elapsed().as_secs_f64();
    let all = before + SERVICES as f64;
    world
        .fleet
        .eventually("all are committed", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            committed(world).await >= all
        })
        .await;
    assert_eq!(world.running(&tag), SERVICES);
    let moves = watch.moves();
    let (busy, _) = Work::of(world.fleet.pid()).since(&work);
    let seconds = moves.last().unwrap().duration_since(begun).as_secs_f64();
    println!(
        "{round:>6} {answered:>11.2} s {seconds:>11.2} s {:>7} {:>8} {:>10.0} {:>14.3} {:>7.2} s",
        moves.len(),
        commits(world) - commits_before,
        SERVICES as f64 / seconds,
        seconds / one_by_one,
        busy.as_secs_f64()
    );
    seconds
}

/// Sends all events. Returns the time of the first answer.
async fn send_all(world: &World, requests: Arc<Vec<Vec<u8>>>) -> Instant {
    let address = world.fleet.address();
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        senders.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut first = None;
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                assert_eq!(connection.send(request).await, 202);
                first.get_or_insert_with(Instant::now);
            }
            first
        });
    }
    let mut first: Option<Instant> = None;
    while let Some(sender) = senders.join_next().await {
        first = first.into_iter().chain(sender.unwrap()).min();
    }
    first.unwrap()
}

async fn committed(world: &World) -> f64 {
    let metrics = world.metrics().await;
    metrics.get("tagrelay_updates_total{environment=\"staging\",outcome=\"committed\"}").copied().unwrap_or_default()
}

fn commits(world: &World) -> usize {
    world.fleet.upstream.git(&["rev-list", "--count", "main"]).trim().parse().unwrap()
}
